//! The feature cache in an S3 bucket: against a server of its own on the loopback, through a link that fails.
//!
//! The server is moto's; without a Python that has it (`TE_PYTHON`) the test says so and is left out.

#[path = "training/source.rs"]
mod source;

use source::Roads;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use training_engine::{
    data::cache::{self, Check, FeatureCache, Lookup, Name, tool},
    features::{FeatureBuilder, Features},
    scenario::Scenario,
};

const BUILDER: FeatureBuilder = FeatureBuilder { radius: 120.0, max_agents: 48, cost_map: false };
const SCENARIOS: usize = 12;
/// Tokens under which every scenario is cached, so that shards are large.
const COPIES: usize = 160;
const CACHE: &str = "s3://features/runs/first";
/// Tells a child process what to do.
const TASK: &str = "TE_TEST_S3";

/// A child process of the test: the library reads its endpoint and credentials from the environment, once a process.
#[test]
fn child() {
    match std::env::var(TASK).as_deref() {
        Ok("fill") => fill(),
        Ok("read") => read(),
        Ok("faults") => faults(),
        Ok("leave") => leave(),
        Ok("mend") => mend(),
        Ok("pack") => pack(),
        Ok("packed") => packed(),
        Ok("clean") => clean(),
        _ => {}
    }
}

fn scenarios() -> Vec<(Scenario, Features)> {
    let source = Roads::new(SCENARIOS);
    let built = |i| {
        let scenario = source.scenario(i);
        let features = FeatureBuilder { cost_map: true, ..BUILDER }.build(&scenario).unwrap();
        (scenario, features)
    };
    (0..SCENARIOS).map(built).collect()
}

fn copies(scenario: &Scenario, features: &Features) -> impl Iterator<Item = (Scenario, Features)> {
    let (scenario, features) = (scenario.clone(), features.clone());
    (0..COPIES).map(move |i| {
        let (mut scenario, mut features) = (scenario.clone(), features.clone());
        scenario.token = format!("{} {i}", scenario.token);
        features.token = scenario.token.clone();
        (scenario, features)
    })
}

fn name(scenario: &Scenario) -> Name<'_> {
    Name { token: &scenario.token, log_name: &scenario.log_name, scenario_type: &scenario.scenario_type, ..Default::default() }
}

/// Writes two shards, one of several parts.
fn fill() {
    for (range, copied) in [(0..SCENARIOS / 2, true), (SCENARIOS / 2..SCENARIOS, false)] {
        let cache = FeatureCache::open(CACHE, BUILDER).unwrap();
        for (scenario, features) in &scenarios()[range] {
            cache.put(&name(scenario), scenario, features).unwrap();
            for (scenario, features) in copies(scenario, features).filter(|_| copied) {
                cache.put(&name(&scenario), &scenario, &features).unwrap();
            }
        }
        cache.finish().unwrap();
    }
}

/// Reads everything on a machine that has nothing yet.
fn read() {
    let (cache, names) = FeatureCache::open_with_catalogue(CACHE, BUILDER).unwrap();
    assert_eq!((cache.contents().shards, cache.contents().entries), (2, SCENARIOS + SCENARIOS / 2 * COPIES));
    assert_eq!(names.len(), cache.contents().entries);
    let same = |scenario: &Scenario, features: &Features| {
        let Lookup::Features(found) = cache.get(&name(scenario)) else { panic!("{} is lost", scenario.token) };
        assert_eq!(found.difference(&features.without_cost_map()), None, "{}", scenario.token);
    };
    for (i, (scenario, features)) in scenarios().iter().enumerate() {
        same(scenario, features);
        if i < SCENARIOS / 2 {
            copies(scenario, features).for_each(|(scenario, features)| same(&scenario, &features));
        }
    }
    assert_eq!(tool::verify(CACHE).unwrap().faults, Vec::<String>::new());
    let shards = tool::list(CACHE).unwrap();
    assert!(shards.iter().any(|shard| shard.bytes > 9 << 20), "one is uploaded in parts: {shards:?}");
}

/// What cannot work is an error that says so.
fn faults() {
    let refused = |url: &str| FeatureCache::open(url, BUILDER).unwrap_err().to_string();
    assert!(refused("s3://").contains("s3://bucket/prefix"));
    let missing = refused("s3://no-such-bucket/x");
    assert!(missing.contains("s3://no-such-bucket/x") && missing.to_lowercase().contains("bucket"), "{missing}");
    let foreign = refused("s3://features/foreign");
    assert!(foreign.contains("is no cache of this library") && foreign.contains("precious.txt"), "{foreign}");
    assert!(cache::remove("s3://features/foreign").unwrap_err().to_string().contains("no cache of this library"));
    // Who looks at a place makes no cache of it.
    for _ in 0..2 {
        assert!(tool::verify("s3://features/runs").unwrap_err().to_string().contains("no cache of this library"));
    }
}

/// Writes an entry that cannot be uploaded, since the bucket is out of reach by then.
fn leave() {
    let (scenario, features) = &scenarios()[0];
    let scenario = Scenario { token: "late".into(), ..scenario.clone() };
    let features = Features { token: "late".into(), ..features.clone() };
    let cache = FeatureCache::open(CACHE, BUILDER).unwrap();
    cache.put(&name(&scenario), &scenario, &features).unwrap();
    println!("\nready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let error = cache.finish().unwrap_err().to_string();
    assert!(error.contains(CACHE), "{error}");
    let Lookup::Features(_) = cache.get(&name(&scenario)) else { panic!("it is still there for this process") };
}

/// The next to open the cache uploads it.
fn mend() {
    let (scenario, _) = &scenarios()[0];
    let scenario = Scenario { token: "late".into(), ..scenario.clone() };
    let cache = FeatureCache::open(CACHE, BUILDER).unwrap();
    assert_eq!((cache.contents().shards, cache.check(&name(&scenario))), (3, Check::Whole));
}

fn pack() {
    let kept = tool::compact(CACHE).unwrap();
    assert_eq!((kept.kept, tool::list(CACHE).unwrap().len()), (SCENARIOS + SCENARIOS / 2 * COPIES + 1, 1));
}

/// What the other machine has packed does not stay on this one.
fn packed() {
    let shards = || {
        let here = Path::new(&std::env::var_os("TE_S3_CACHE").unwrap()).join("s3").join(CACHE.strip_prefix("s3://").unwrap());
        let names = std::fs::read_dir(here).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".shard")).count()
    };
    assert_eq!(shards(), 3);
    assert_eq!(FeatureCache::open(CACHE, BUILDER).unwrap().contents().shards, 1);
    assert_eq!(shards(), 1);
}

fn clean() {
    cache::remove(CACHE).unwrap();
    assert_eq!(FeatureCache::open(CACHE, BUILDER).unwrap().contents().entries, 0);
    cache::remove(CACHE).unwrap();
    cache::remove(CACHE).unwrap();
}

/// A server with a bucket `features`.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// None where Python lacks the server.
    fn start() -> Option<Self> {
        let python = std::env::var("TE_PYTHON").ok()?;
        let found = Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status().ok()?.success();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let serve = ["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()];
        let process = found.then(|| Command::new(&python).args(serve).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())?;
        let server = Self { process, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "the server does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server.put("/features", "");
        server.put("/features/foreign/precious.txt", "x");
        Some(server)
    }

    /// One plain request.
    fn put(&self, path: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        let head = format!("PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {length}\r\nConnection: close\r\n", self.port);
        let authorization =
            "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        write!(stream, "{head}{authorization}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Most bytes of an answer over a link that breaks off.
const BROKEN_AFTER: usize = 300_000;

/// A link to the server: while it fails, connections are cut, answered with "slow down", or broken off amid an answer, in turn
/// with good ones.
#[derive(Default)]
struct Link {
    failing: AtomicBool,
    down: AtomicBool,
    connections: AtomicUsize,
    failures: AtomicUsize,
}

impl Link {
    fn start(server: u16) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let link = Arc::new(Self::default());
        let shared = Arc::clone(&link);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let link = Arc::clone(&shared);
                std::thread::spawn(move || link.carry(stream, server));
            }
        });
        (link, port)
    }

    fn carry(&self, mut client: TcpStream, server: u16) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let kind = if self.failing.load(Ordering::Relaxed) { number % 6 } else { 5 };
        self.failures.fetch_add(usize::from(kind < 3), Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) || kind == 0 {
            return;
        }
        if kind == 1 {
            let mut request = [0; 4096];
            let _ = client.read(&mut request);
            let _ = client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)) else { return };
        let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
        let sending = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        let (mut sent, mut buffer, mut upstream) = (0, vec![0; 1 << 16], upstream);
        while let Ok(count @ 1..) = upstream.read(&mut buffer) {
            sent += count;
            let cut = kind == 2 && sent > BROKEN_AFTER;
            if cut || self.down.load(Ordering::Relaxed) || client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = upstream.shutdown(Shutdown::Both);
        let _ = sending.join();
    }
}

fn command(task: &str, port: u16, machine: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(TASK, task).env("TE_S3_CACHE", machine);
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "not to be printed");
    command
}

fn run(task: &str, port: u16, machine: &Path) {
    let output = command(task, port, machine).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{task}: {text}");
    assert!(!text.contains("not to be printed"));
}

#[test]
fn a_bucket_serves_two_machines_over_a_link_that_fails() {
    let Some(server) = Server::start() else {
        println!("left out: no Python with moto's server (TE_PYTHON)");
        return;
    };
    let (link, port) = Link::start(server.port);
    let machines = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = [machines[0].path(), machines[1].path()];
    run("faults", port, first);

    link.failing.store(true, Ordering::Relaxed);
    run("fill", port, first);
    run("read", port, second);
    assert!(link.failures.load(Ordering::Relaxed) >= 3, "the link failed {} times", link.failures.load(Ordering::Relaxed));
    link.failing.store(false, Ordering::Relaxed);
    // What is here is not downloaded again: it is opened three times, with two listings each.
    let before = link.connections.load(Ordering::Relaxed);
    run("read", port, second);
    assert!(link.connections.load(Ordering::Relaxed) - before <= 6);

    let mut leaving = command("leave", port, first).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 1];
    let mut text = String::new();
    while !text.ends_with("ready\n") && leaving.stdout.as_mut().unwrap().read(&mut said).unwrap() == 1 {
        text.push(said[0] as char);
    }
    link.down.store(true, Ordering::Relaxed);
    leaving.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = leaving.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    link.down.store(false, Ordering::Relaxed);
    run("mend", port, first);
    run("mend", port, second);
    run("pack", port, second);
    run("packed", port, first);
    run("clean", port, second);
}
