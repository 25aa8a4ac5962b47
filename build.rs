//! Compiles `kernels/*.cu` with nvcc, where there is one, for the library to embed. Without nvcc the library trains on the CPU.
//!
//! - `NVCC`: the compiler; empty: none, even if there is one.
//! - `TE_CUDA_ARCHITECTURES`: instead of all of [`ARCHITECTURES`], such as `90` or `80,90`.

use std::{
    collections::hash_map::DefaultHasher,
    env,
    ffi::OsString,
    fmt::Write,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// Compute capabilities that have their own code; others take the PTX of the first.
const ARCHITECTURES: &str = "80,86,89,90,100,120";
const FLAGS: [&str; 5] = ["-fatbin", "-std=c++17", "-O3", "--expt-relaxed-constexpr", "--resource-usage"];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let files = list(&root.join("kernels"));
    ["NVCC", "CUDA_HOME", "PATH", "TE_CUDA_ARCHITECTURES"].iter().for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=kernels");
    files.iter().for_each(|file| println!("cargo::rerun-if-changed={}", file.display()));

    let nvcc = find_nvcc(&root);
    let compiled = match &nvcc {
        Some(nvcc) => compile(nvcc, &files, &out).unwrap_or_else(|reason| {
            reason.lines().for_each(|line| println!("cargo::warning={line}"));
            println!("cargo::warning=the kernels were not compiled: this library trains on the CPU alone");
            Compiled::default()
        }),
        None => {
            println!(
                "cargo::warning=no nvcc was found (NVCC, CUDA_HOME, PATH, /usr/local/cuda, .venv): this library trains on the CPU alone; \
                 touch build.rs to have it looked for again"
            );
            Compiled::default()
        }
    };
    let Compiled { files, architectures, major } = compiled;
    // For tests of what it makes of the kernels.
    let nvcc = nvcc.filter(|_| !files.is_empty()).unwrap_or_default();
    println!("cargo::rustc-env=TE_NVCC={}", nvcc.display());
    let mut text = format!("const ARCHITECTURES: &str = {architectures:?};\nconst COMPILER: i32 = {major};\n");
    text.push_str("const IMAGES: &[(&str, &[u8])] = &[\n");
    for path in files {
        let family = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.split('.').next()).unwrap_or_default();
        writeln!(text, "    ({family:?}, include_bytes!({path:?})),").expect("a string grows");
    }
    text.push_str("];\n");
    fs::write(out.join("kernels.rs"), text).expect("OUT_DIR can be written");
}

/// The files of a folder in the order of their names.
fn list(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The compiler: named by `NVCC`, below `CUDA_HOME`, in `PATH`, where NVIDIA installs it, or of the Python package nvidia-cuda-nvcc in
/// `.venv`.
fn find_nvcc(root: &Path) -> Option<PathBuf> {
    if let Some(nvcc) = env::var_os("NVCC") {
        return Some(PathBuf::from(nvcc)).filter(|nvcc| !nvcc.as_os_str().is_empty());
    }
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path: Vec<PathBuf> = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let packages = list(&root.join(".venv/lib")).into_iter().flat_map(|python| list(&python.join("site-packages/nvidia")));
    let usual = PathBuf::from("/usr/local/cuda/bin");
    let mut folders = home.into_iter().chain(path).chain([usual]).chain(packages.map(|package| package.join("bin")));
    folders.find_map(|folder| ["nvcc", "nvcc.exe"].iter().map(|name| folder.join(name)).find(|nvcc| nvcc.is_file()))
}

/// Architectures to compile for, with commas between them: those that are asked for, or all of which this compiler knows.
fn architectures(nvcc: &Path) -> Result<String, String> {
    if let Ok(asked) = env::var("TE_CUDA_ARCHITECTURES") {
        return Ok(asked);
    }
    let printed = run(Command::new(nvcc).arg("--list-gpu-code"))?;
    let printed = String::from_utf8_lossy(&printed);
    let is_known = |number: &&str| printed.lines().any(|line| line.trim().strip_prefix("sm_") == Some(number));
    let (known, unknown): (Vec<_>, Vec<_>) = ARCHITECTURES.split(',').partition(is_known);
    if !unknown.is_empty() {
        println!("cargo::warning=this nvcc has no code for compute capabilities {}, in tenths: PTX is for them", unknown.join(", "));
    }
    Ok(known.join(","))
}

/// Major version of a compiler, of what it prints of itself.
fn major(version: &[u8]) -> Option<i32> {
    String::from_utf8_lossy(version).split_once("release ")?.1.split_once('.')?.0.parse().ok()
}

/// What the library embeds.
#[derive(Default)]
struct Compiled {
    files: Vec<PathBuf>,
    architectures: String,
    /// Version of the compiler.
    major: i32,
}

/// Compiles each file for all architectures, unless that has been done. The results are kept in the target folder for builds with other
/// options, too: the kernels are the same in all of them.
fn compile(nvcc: &Path, files: &[PathBuf], out: &Path) -> Result<Compiled, String> {
    let architectures = architectures(nvcc)?;
    let (sources, headers): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.extension().is_some_and(|e| e == "cu"));
    let mut flags: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
    for (i, number) in architectures.split(',').map(str::trim).enumerate() {
        if i == 0 {
            flags.push(format!("-gencode=arch=compute_{number},code=compute_{number}").into());
        }
        flags.push(format!("-gencode=arch=compute_{number},code=sm_{number}").into());
    }
    let version = run(Command::new(nvcc).arg("--version"))?;
    let major = major(&version).ok_or_else(|| format!("{nvcc:?} does not say its version"))?;
    // target/PROFILE/build/NAME-HASH/out
    let store = out.ancestors().nth(4).unwrap_or(out).join("kernels");
    fs::create_dir_all(&store).map_err(|e| format!("{store:?}: {e}"))?;
    let targets = sources.iter().map(|source| {
        let mut hash = DefaultHasher::new();
        (&version, &flags).hash(&mut hash);
        headers
            .iter()
            .chain([source])
            .try_for_each(|file| fs::read(file).map(|text| text.hash(&mut hash)).map_err(|e| format!("{file:?}: {e}")))?;
        let family = source.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| format!("the name of {source:?}"))?;
        Ok(store.join(format!("{family}.{:016x}.fatbin", hash.finish())))
    });
    let targets = targets.collect::<Result<Vec<PathBuf>, String>>()?;
    let is_ours = |file: &&PathBuf| file.extension().is_some_and(|e| e == "fatbin" || e == "resources");
    for old in [list(&store), list(out)]
        .iter()
        .flatten()
        .filter(is_ours)
        .filter(|file| !targets.iter().any(|target| target.file_stem() == file.file_stem()))
    {
        _ = fs::remove_file(old);
    }
    let todo: Vec<_> = sources.iter().zip(&targets).filter(|(_, target)| !target.exists()).collect();
    let (next, failed) = (Mutex::new(todo.iter()), Mutex::new(None));
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    std::thread::scope(|scope| {
        for _ in 0..todo.len().min(jobs) {
            scope.spawn(|| {
                loop {
                    let Some((source, target)) = next.lock().expect("no job panics").next() else { break };
                    // Under another name first: a result is whole or not there.
                    let part = target.with_extension(format!("{}.part", std::process::id()));
                    let done = run(Command::new(nvcc).args(&flags).arg("-o").arg(&part).arg(source)).and_then(|printed| {
                        // Registers and spills of every kernel: a test reads them.
                        let resources = fs::write(target.with_extension("resources"), printed);
                        resources.and_then(|()| fs::rename(&part, target)).map_err(|e| format!("{target:?}: {e}"))
                    });
                    if let Err(reason) = done {
                        failed.lock().expect("no job panics").get_or_insert(reason);
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no job panics").map_or(Ok(()), Err)?;
    let copy = |from: PathBuf| {
        let to = out.join(from.file_name().unwrap_or_default());
        fs::copy(&from, &to).map(|_| to).map_err(|e| format!("{from:?}: {e}"))
    };
    let files = targets.into_iter().map(|target| copy(target.with_extension("resources")).and_then(|_| copy(target)));
    Ok(Compiled { files: files.collect::<Result<_, _>>()?, architectures, major })
}

/// Runs a command to its end and gives what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        Ok([output.stdout, output.stderr].concat())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
