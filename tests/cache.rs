//! The feature cache: everything comes back, whatever is killed or damaged, and whoever writes beside.

mod common;
#[path = "training/source.rs"]
mod source;

use source::Roads;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use training_engine::{
    data::{
        Catalogue,
        cache::{Check, FeatureCache, Lookup, Name, fill, tool},
        memory_cache::MemoryCache,
        supply::Supply,
    },
    error::{Error, Rejection},
    features::{FeatureBuilder, Features},
    scenario::{Scenario, ScenarioSource},
};

/// Reads leave the cost map out, whose distances take ten times as long as all the rest.
const PLAIN: FeatureBuilder = FeatureBuilder { radius: 120.0, max_agents: 48, cost_map: false };

fn open(folder: &Path) -> FeatureCache {
    FeatureCache::open(folder.to_str().unwrap(), PLAIN).unwrap()
}

fn path(folder: &tempfile::TempDir) -> &str {
    folder.path().to_str().unwrap()
}

fn name(scenario: &Scenario) -> Name<'_> {
    Name { token: &scenario.token, log_name: &scenario.log_name, scenario_type: &scenario.scenario_type, ..Default::default() }
}

fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// A cache with scenarios of the road in several shards, with their features.
fn filled(folder: &Path, count: usize) -> Vec<(Scenario, Features)> {
    let source = Roads::new(count);
    let cache = open(folder).with_shard_bytes(12_000);
    let all: Vec<_> = (0..count)
        .map(|i| {
            let scenario = source.scenario(i);
            let features = cache.builder().build(&scenario).unwrap();
            cache.put(&name(&scenario), &scenario, &features).unwrap();
            (scenario, features)
        })
        .collect();
    all
}

/// Entries of the cache that are there; they must be right.
fn present(cache: &FeatureCache, expected: &[(Scenario, Features)]) -> usize {
    let is_there = |(scenario, features): &&(Scenario, Features)| match cache.get(&name(scenario)) {
        Lookup::Features(found) => {
            assert_eq!(found.difference(&features.without_cost_map()), None, "{}", scenario.token);
            true
        }
        Lookup::Rejected(..) => panic!("{} was not rejected", scenario.token),
        Lookup::Missing => false,
    };
    expected.iter().filter(is_there).count()
}

#[test]
fn features_come_back_bit_for_bit() {
    let own = common::files_below(&common::data().join("scenarios"), ".json.gz");
    let shared = common::shared().map(|folder| common::files_below(&folder.join("data/scenarios"), ".json.gz")).unwrap_or_default();
    let builder = FeatureBuilder::default();
    let folder = tempfile::tempdir().unwrap();
    let cache = FeatureCache::open(folder.path().to_str().unwrap(), builder).unwrap();
    let mut written = Vec::new();
    for file in own.into_iter().chain(shared.into_iter().step_by(9)) {
        let Ok(scenario) = common::read_scenario(&file) else { continue };
        match builder.build(&scenario) {
            Ok(features) => {
                cache.put(&name(&scenario), &scenario, &features).unwrap();
                written.push((scenario, features));
            }
            Err(Error::Scenario { rejection, reason, .. }) => cache.put_rejected(&name(&scenario), rejection, &reason).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written.len() > 10, "{}", written.len());
    let here = |cache: &FeatureCache| {
        for (scenario, features) in &written {
            let Lookup::Features(found) = cache.get(&name(scenario)) else { panic!("{} is lost", scenario.token) };
            assert_eq!(found.difference(features), None, "{}", scenario.token);
            assert_eq!(cache.check(&name(scenario)), Check::Whole);
        }
    };
    here(&cache);
    drop(cache);
    here(&FeatureCache::open(folder.path().to_str().unwrap(), builder).unwrap());
    assert_eq!(tool::verify(path(&folder)).unwrap().faults, Vec::<String>::new());

    // Exported arrays are those of the features.
    let (scenario, features) = &written[0];
    let file = folder.path().join("exported");
    let count = tool::features(path(&folder), std::slice::from_ref(&scenario.token), |name, features| tool::export(&file, name, features));
    assert_eq!(count, Ok(tool::Taken { count: 1, other: 0 }));
    let bytes = std::fs::read(&file).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let arrays = features.arrays();
    assert_eq!(read.len(), arrays.len());
    for (name, shape, array) in arrays {
        let tensor = read.tensor(name).unwrap();
        assert_eq!((tensor.shape(), tensor.data()), (&shape[..], &array.bytes()[..]), "{name}");
    }
}

#[test]
fn what_features_depend_on_is_part_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 2);
    let path = folder.path().to_str().unwrap();
    let other = FeatureCache::open(path, FeatureBuilder { max_agents: 7, ..PLAIN }).unwrap();
    assert_eq!((present(&other, &all), other.contents().other_shards > 0), (0, true));
    let cache = open(folder.path());
    assert_eq!(present(&cache, &all), 2);
    for changed in ["token", "log_name", "scenario_type"] {
        let mut name = name(&all[0].0);
        match changed {
            "token" => name.token = "x",
            "log_name" => name.log_name = "x",
            _ => name.scenario_type = "x",
        }
        assert!(matches!(cache.get(&name), Lookup::Missing), "{changed}");
    }
    // Features of another scenario are not taken.
    assert!(cache.put(&name(&all[0].0), &all[0].0, &all[1].1).is_err());
}

#[test]
fn rejections_are_remembered_and_the_latest_entry_counts() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 3);
    let first = name(&all[0].0);
    open(folder.path()).put_rejected(&first, Rejection::BadRoute, "no route").unwrap();
    let cache = open(folder.path());
    assert_eq!(cache.check(&first), Check::Rejected(Rejection::BadRoute, "no route".into()));
    assert_eq!((cache.contents().entries, present(&cache, &all[1..])), (3, 2));
    cache.put(&first, &all[0].0, &all[0].1).unwrap();
    assert_eq!(present(&cache, &all), 3);
    drop(cache);
    let before = tool::list(path(&folder)).unwrap();
    let done = tool::compact(path(&folder)).unwrap();
    assert_eq!((done.kept, done.in_use), (3, 0));
    assert!(done.after < done.before);
    let after = tool::list(path(&folder)).unwrap();
    assert!(before.len() > 1 && after.len() == 1 && after[0].builder == Some(FeatureBuilder { cost_map: true, ..PLAIN }), "{after:?}");
    assert_eq!(present(&open(folder.path()), &all), 3);
}

/// The shard that was begun last.
fn newest(folder: &Path) -> PathBuf {
    files(folder).into_keys().rfind(|path| path.extension().is_some_and(|end| end == "shard")).unwrap()
}

#[test]
fn what_a_run_writes_counts_more_than_older_entries_that_are_compacted_beside() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 2);
    let [first, second] = [name(&all[0].0), name(&all[1].0)];
    open(folder.path()).put_rejected(&first, Rejection::BadRoute, "old").unwrap();
    let running = open(folder.path());
    running.put(&first, &all[0].0, &all[0].1).unwrap();
    open(folder.path()).put_rejected(&second, Rejection::BadRoute, "new").unwrap();
    let right = || {
        let cache = open(folder.path());
        assert_eq!(present(&cache, &all[..1]), 1);
        assert_eq!(cache.check(&second), Check::Rejected(Rejection::BadRoute, "new".into()));
    };
    right();
    let done = tool::compact(path(&folder)).unwrap();
    assert_eq!((done.in_use, done.kept), (1, 3));
    right();
    drop(running);
    assert_eq!(tool::compact(path(&folder)).unwrap().kept, 2);
    right();
}

#[test]
fn of_entries_with_one_key_the_latest_whole_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 1);
    for reason in ["second", "third", "fourth"] {
        open(folder.path()).put_rejected(&name(&all[0].0), Rejection::BadRoute, reason).unwrap();
        if reason != "second" {
            // Its index names the entry nevertheless.
            let mut bytes = std::fs::read(newest(folder.path())).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(newest(folder.path()), bytes).unwrap();
        }
    }
    assert_eq!(tool::compact(path(&folder)).unwrap().kept, 1);
    assert_eq!(open(folder.path()).check(&name(&all[0].0)), Check::Rejected(Rejection::BadRoute, "second".into()));
}

#[test]
fn shards_that_do_not_say_how_they_were_built_are_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 2);
    open(folder.path()).put_rejected(&Name::default(), Rejection::BadRoute, "none").unwrap();
    let shard = newest(folder.path());
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    std::fs::remove_file(shard.with_extension("index")).unwrap();
    let done = tool::compact(path(&folder)).unwrap();
    assert_eq!((done.kept, done.unknown), (2, 1));
    assert_eq!(std::fs::read(&shard).unwrap(), bytes);
}

#[test]
fn nothing_is_lost_while_others_compact() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 6);
    let count = 300;
    let names: Vec<String> = (0..count).map(|i| format!("rejected {i}")).collect();
    let name = |i: usize| Name { token: &names[i], ..Default::default() };
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for i in 0..count {
                let cache = open(folder.path());
                assert_eq!(present(&cache, &all), all.len(), "what was there stays");
                cache.put_rejected(&name(i), Rejection::BadRoute, "none").unwrap();
            }
        });
        while !writing.is_finished() {
            tool::compact(path(&folder)).unwrap();
            tool::list(path(&folder)).unwrap();
        }
    });
    let cache = open(folder.path());
    let lost: Vec<_> = (0..count).filter(|&i| cache.check(&name(i)) == Check::Missing).collect();
    assert_eq!((lost, present(&cache, &all)), (vec![], all.len()));
}

#[test]
fn a_shard_that_is_gone_since_it_was_listed_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 2);
    let gone = folder.path().join("0000000000000001-00000001.shard");
    std::os::unix::fs::symlink("nowhere", &gone).unwrap();
    assert_eq!(present(&open(folder.path()), &all), 2);
    assert_eq!(tool::entries(path(&folder)).unwrap().len(), 2);
    assert_eq!(tool::compact(path(&folder)).unwrap().kept, 2);
}

#[test]
fn every_scenario_is_exported_to_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (scenario, features) = &filled(folder.path(), 1)[0];
    let elsewhere = Scenario { log_name: "other/log".into(), ..scenario.clone() };
    open(folder.path()).put(&name(&elsewhere), &elsewhere, features).unwrap();
    let few = FeatureCache::open(path(&folder), FeatureBuilder { max_agents: 3, ..PLAIN }).unwrap();
    few.put(&name(scenario), scenario, &few.builder().build(scenario).unwrap()).unwrap();
    drop(few);
    // A shard of another version of the library.
    let other = FeatureCache::open(path(&folder), FeatureBuilder { max_agents: 5, ..PLAIN }).unwrap();
    other.put(&name(scenario), scenario, &other.builder().build(scenario).unwrap()).unwrap();
    drop(other);
    let shard = newest(folder.path());
    let mut bytes = std::fs::read(&shard).unwrap();
    let length = u32::from_le_bytes(*bytes[8..].first_chunk().unwrap()) as usize;
    bytes[24] ^= 1;
    let checksum = [&bytes[4..12], &bytes[16..24 + length]].into_iter().fold(0, crc32c::crc32c_append);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&shard, bytes).unwrap();

    let output = folder.path().join("exported");
    let said = Command::new(env!("CARGO_BIN_EXE_te-cache")).arg("export").args([folder.path(), &output]).output().unwrap();
    assert!(said.status.success());
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "3 scenarios\n1 entries of another version of the library were left out\n");
    let mut written = common::files_below(&output, ".safetensors");
    written.sort();
    let written: Vec<_> = written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert!(written.len() == 3 && written.contains(&"scenario_0.safetensors"), "{written:?}");
}

/// Files of the cache with their bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end != "json"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn damage_is_found_reported_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 12);
    let whole = files(folder.path());
    assert!(whole.len() >= 6, "shards and indexes: {}", whole.len());
    let mut state = 7;
    let (mut lost, mut unhurt) = (0, 0);
    for round in 0..200 {
        let paths: Vec<&PathBuf> = whole.keys().collect();
        let mut shard_hurt = false;
        for _ in 0..=random(&mut state) % 3 {
            let path = paths[random(&mut state) % paths.len()];
            let mut bytes = std::fs::read(path).unwrap();
            if bytes.is_empty() {
                continue;
            }
            match random(&mut state) % 8 {
                0 => bytes.truncate(random(&mut state) % bytes.len()),
                1 => bytes.extend((0..random(&mut state) % 200).map(|i| (i * 37) as u8)),
                _ => {
                    for _ in 0..=random(&mut state) % 8 {
                        let at = random(&mut state) % bytes.len();
                        bytes[at] ^= 1 << (random(&mut state) % 8);
                    }
                }
            }
            shard_hurt |= path.extension().is_some_and(|end| end == "shard") && bytes != whole[path];
            std::fs::write(path, &bytes).unwrap();
        }
        let cache = open(folder.path());
        let found = present(&cache, &all);
        lost += all.len() - found;
        unhurt += found;
        if found < all.len() {
            assert!(shard_hurt, "round {round}: an index alone can be made again");
            assert!(!tool::verify(path(&folder)).unwrap().faults.is_empty() || cache.contents().entries < all.len());
        }
        if round % 10 == 0 {
            for (scenario, features) in &all {
                if cache.check(&name(scenario)) == Check::Missing {
                    cache.put(&name(scenario), scenario, features).unwrap();
                }
            }
            assert_eq!(present(&cache, &all), all.len());
            drop(cache);
            assert_eq!(present(&open(folder.path()), &all), all.len(), "mended");
        }
        files(folder.path()).keys().filter(|path| !whole.contains_key(*path)).for_each(|path| std::fs::remove_file(path).unwrap());
        whole.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
    assert!(lost > 50 && unhurt > lost, "{lost} entries were lost, {unhurt} were not");
}

/// Scenarios of the source that the child processes cache.
const SCENARIOS: usize = 400;
/// Tells a child its folder, and the first scenario and the stride of those that it is to cache.
const CHILD: &str = "TE_TEST_CACHE";

/// A child process of the tests below: fills a cache and says what is written.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let [first, stride, folder] = task.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{task}") };
    let source = Roads::new(SCENARIOS);
    let mut catalogue = Catalogue::default();
    (0..SCENARIOS).for_each(|i| catalogue.push(&(&source.info(i).unwrap()).into()));
    let supply = Supply {
        source: Some(Arc::new(source)),
        catalogue,
        builder: PLAIN,
        memory: MemoryCache::new(0),
        cache: Some(open(Path::new(folder)).with_shard_bytes(100_000)),
        force: false,
        unwritten: Mutex::default(),
    };
    for index in (first.parse().unwrap()..SCENARIOS).step_by(stride.parse().unwrap()) {
        fill::fill(&supply, &[index], 1, |filled| {
            assert!(!matches!(filled, fill::Filled::Rejected(_)));
            println!("\n{} {index}", if filled == fill::Filled::Computed { "computed" } else { "present" });
            true
        })
        .unwrap();
    }
    println!("\nend");
}

fn spawn(folder: &Path, first: usize, stride: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{first} {stride} {}", folder.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Numbers that a child printed after a word.
fn numbers(lines: &[String], word: &str) -> Vec<usize> {
    lines.iter().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).collect()
}

/// Checks the entries of some scenarios of the source.
fn check(cache: &FeatureCache, indices: impl IntoIterator<Item = usize>) {
    let source = Roads::new(SCENARIOS);
    for index in indices {
        let scenario = source.scenario(index);
        let features = PLAIN.build(&scenario).unwrap();
        assert_eq!(present(cache, &[(scenario, features)]), 1, "scenario {index}");
    }
}

#[test]
fn killed_at_any_moment_nothing_reported_is_lost_and_nothing_is_done_twice() {
    let mut folder = tempfile::tempdir().unwrap();
    let (mut state, mut reported, mut kills) = (std::process::id().into(), BTreeSet::new(), 0);
    while kills < 50 {
        let mut child = spawn(folder.path(), 0, 1);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        // It is killed some time after it first wrote something, mostly while it writes.
        while let Some(Ok(line)) = lines.next() {
            let wrote = line.starts_with("computed");
            said.push(line);
            if wrote {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros((random(&mut state) % 20_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        said.extend(lines.map_while(Result::ok));
        kills += 1;
        let computed = numbers(&said, "computed");
        assert!(computed.iter().all(|index| !reported.contains(index)), "computed again: {computed:?}, reported {reported:?}");
        assert!(numbers(&said, "present").len() >= reported.len(), "{reported:?} {said:?}");
        reported.extend(computed);
        if kills % 10 == 0 {
            check(&open(folder.path()), reported.iter().copied());
            assert_eq!(tool::verify(path(&folder)).unwrap().faults.iter().filter(|fault| !fault.contains("no whole frame")).count(), 0);
        }
        if said.iter().any(|line| line == "end") {
            folder = tempfile::tempdir().unwrap();
            reported.clear();
        }
    }
    assert!(kills == 50 && !reported.is_empty());
    let entries = open(folder.path()).contents().entries;
    assert!(entries >= reported.len() && entries <= reported.len() + 50, "{entries} entries, {} reported", reported.len());
}

#[test]
fn two_processes_write_while_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut children = [spawn(folder.path(), 0, 2), spawn(folder.path(), 1, 2)];
    let (mut seen, mut running) = (0, true);
    while running {
        running = children.iter_mut().any(|child| child.try_wait().unwrap().is_none());
        let (cache, names) = FeatureCache::open_with_catalogue(folder.path().to_str().unwrap(), PLAIN).unwrap();
        assert!(names.len() >= seen, "what was there stays");
        seen = names.len();
        assert_eq!(tool::verify(path(&folder)).unwrap().faults, Vec::<String>::new());
        check(&cache, (0..names.len()).step_by(50).map(|i| names.token(i).strip_prefix("scenario ").unwrap().parse().unwrap()));
        std::thread::sleep(Duration::from_millis(50));
    }
    children.iter_mut().for_each(|child| assert!(child.wait().unwrap().success()));
    assert_eq!(seen, SCENARIOS);
    check(&open(folder.path()), 0..SCENARIOS);
    assert_eq!(tool::verify(path(&folder)).unwrap().faults, Vec::<String>::new());
}

/// First inputs for `tests/fuzz`, which are a cache's files without their checksums; they go to the folder `TE_FUZZ_CORPUS`.
#[test]
fn fuzz_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let all = filled(folder.path(), 5);
    open(folder.path()).put_rejected(&name(&all[0].0), Rejection::BadRoute, "none").unwrap();
    for (number, (path, bytes)) in files(folder.path()).into_iter().filter(|(path, _)| path.extension().unwrap() == "shard").enumerate() {
        let (mut input, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((header, payload)) = rest.split_first_chunk::<24>() {
            let length = u32::from_le_bytes(*header[8..].first_chunk().unwrap()) as usize;
            input.push(header[4]);
            input.extend(&header[16..]);
            input.extend((length as u16).to_le_bytes());
            input.extend(&payload[..length]);
            rest = &payload[length..];
        }
        assert!(rest.is_empty() && input.len() < bytes.len());
        input.extend([0; 11]);
        input.extend(&std::fs::read(path.with_extension("index")).unwrap()[8..]);
        if let Ok(corpus) = std::env::var("TE_FUZZ_CORPUS") {
            std::fs::write(Path::new(&corpus).join(format!("first-{number}")), input).unwrap();
        }
    }
}
