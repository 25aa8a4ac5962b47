//! Compiles the kernels and the emulator into `target/emulator` and loads them. Results are named by a hash of the command and of all
//! that the source includes, so that what has not changed is not compiled again.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, OsString, c_char, c_void},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};
use xxhash_rust::xxh3::xxh3_64;

const FLAGS: &[&str] = &["-std=gnu++17", "-fPIC", "-march=native", "-Wall", "-Wno-unknown-pragmas"];
/// As nvcc treats floats, with one multiplication and addition contracted; kernels read the same memory as several types.
const KERNEL_FLAGS: &[&str] =
    &["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing", "-fvisibility=hidden"];
/// The hooks of two sanitizers, which checker.cpp answers; their libraries are not linked.
const CHECKED_FLAGS: &[&str] =
    &["-O1", "-g", "-DEMULATOR_CHECKED=Checked", "-fsanitize=thread", "-fsanitize=alignment,bounds,shift-exponent,integer-divide-by-zero"];

/// Functions of the loaded emulator; see `memory.cpp`.
pub struct Library {
    pub create: unsafe extern "C" fn(i32) -> *mut c_void,
    pub destroy: unsafe extern "C" fn(*mut c_void),
    pub error: unsafe extern "C" fn(*const c_void) -> *const c_char,
    pub schedule: unsafe extern "C" fn(*mut c_void, i32),
    pub allocate: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub free: unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32,
    pub upload: unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_void, usize) -> i32,
    pub download: unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_void, usize) -> i32,
    pub copy: unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_void, usize) -> i32,
    pub clear: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> i32,
    pub launch: unsafe extern "C" fn(*mut c_void, *const c_char, *const u32, u32, u32, *const c_void, usize) -> i32,
    pub reports: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    pub measure: unsafe extern "C" fn(*mut c_void),
    pub costs: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    pub load_compiled: unsafe extern "C" fn(*const c_char) -> *const c_char,
}

/// Who compiled the kernels; `Kind` of `emulator.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// The host's compiler.
    Plain,
    /// It, with the checker's hooks.
    Checked,
    /// NVIDIA's compiler.
    Compiled,
}

/// The emulator with the kernels loaded.
///
/// # Panics
/// A file does not compile: with what the compiler says.
pub fn library(kind: Kind) -> &'static Library {
    static EMULATOR: OnceLock<Library> = OnceLock::new();
    static KERNELS: [OnceLock<()>; 3] = [const { OnceLock::new() }; 3];
    let library = EMULATOR.get_or_init(|| functions(load(&core(), true)));
    KERNELS[kind as usize].get_or_init(|| match kind {
        Kind::Compiled => compiled(library),
        _ => kernels(kind == Kind::Checked).iter().for_each(|library| _ = load(library, false)),
    });
    library
}

/// Loads the kernels and the samples as NVIDIA's compiler makes them for the oldest architecture.
fn compiled(library: &Library) {
    let nvcc = nvcc().expect("the build had no nvcc");
    let flags = ["-ptx", "-arch=compute_80", "-std=c++17", "-O3", "--expt-relaxed-constexpr"];
    for file in Folder::open("ptx").compile(nvcc, &flags, &sources(), "ptx") {
        let path = CString::new(file.to_str().unwrap()).unwrap();
        // SAFETY: a text, and one that is valid until the next call.
        let failure = unsafe { CStr::from_ptr((library.load_compiled)(path.as_ptr())) };
        assert!(failure.is_empty(), "{}", failure.to_string_lossy());
    }
}

/// NVIDIA's compiler, if the build had one.
pub fn nvcc() -> Option<&'static str> {
    Some(env!("TE_NVCC")).filter(|nvcc| !nvcc.is_empty())
}

fn room() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator")
}

/// The emulator without kernels.
fn core() -> PathBuf {
    let sources = ["emulator", "warp", "memory", "checker", "meter", "ptx", "instructions"].map(|name| room().join(format!("{name}.cpp")));
    build("core", &sources, &["-O3", "-fno-semantic-interposition", "-fno-plt"], "emulator").remove(0)
}

/// The kernels and the samples.
fn sources() -> Vec<PathBuf> {
    let mut sources = list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"), "cu");
    sources.push(room().join("samples.cu"));
    sources
}

/// Each file is a library of its own, as it is a module of its own on a device: names of its functions are its own.
fn kernels(checked: bool) -> Vec<PathBuf> {
    let mode: &[&str] = if checked { CHECKED_FLAGS } else { &["-O2"] };
    let flags = [KERNEL_FLAGS, mode].concat();
    build(if checked { "checked" } else { "plain" }, &sources(), &flags, "")
}

/// Environment variables with which a program takes the emulated device for a GPU; see `driver.cpp`.
///
/// # Panics
/// A file does not compile: with what the compiler says.
pub fn driver() -> [(&'static str, OsString); 2] {
    let libraries: Vec<PathBuf> = [core()].into_iter().chain(kernels(false)).collect();
    let driver = build("driver", &[room().join("driver.cpp")], &["-O1", "-Wextra", "-fvisibility=hidden"], "driver").remove(0);
    let folder = driver.with_file_name("libraries");
    fs::create_dir_all(&folder).unwrap();
    // Another test program may do it at the same time.
    let part = folder.join(std::process::id().to_string());
    std::os::unix::fs::symlink(&driver, &part).and_then(|()| fs::rename(&part, folder.join("libcuda.so"))).unwrap();
    [("LD_LIBRARY_PATH", folder.into()), ("EMULATED_DRIVER_LIBRARIES", std::env::join_paths(libraries).unwrap())]
}

/// Compiles sources, each to a shared library, or together to one of the given name; gives the libraries.
fn build(folder: &str, sources: &[PathBuf], flags: &[&str], together: &str) -> Vec<PathBuf> {
    let folder = Folder::open(folder);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let objects = folder.compile(&compiler, &[FLAGS, flags, &["-c", "-x", "c++"]].concat(), sources, "o");
    let library_of = |objects: &[PathBuf], name: &str| {
        let names = objects.iter().map(|object| object.to_string_lossy()).collect::<String>();
        folder.path.join(format!("{name}.{:016x}.so", xxh3_64(names.as_bytes())))
    };
    let libraries: Vec<(PathBuf, Vec<PathBuf>)> = if together.is_empty() {
        sources.iter().zip(&objects).map(|(s, o)| (library_of(std::slice::from_ref(o), &name_of(s)), vec![o.clone()])).collect()
    } else {
        vec![(library_of(&objects, together), objects)]
    };
    let missing: Vec<_> = libraries.iter().filter(|(library, _)| !library.exists()).collect();
    in_parallel(&missing, |(library, objects)| run(Command::new(&compiler).arg("-shared").args(objects), library));
    let libraries: Vec<PathBuf> = libraries.into_iter().map(|(library, _)| library).collect();
    folder.keep(&libraries, "so");
    libraries
}

/// A folder of results, locked: other test programs may build at the same time.
struct Folder {
    path: PathBuf,
    _lock: fs::File,
}

impl Folder {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/emulator").join(name);
        fs::create_dir_all(&path).unwrap();
        let lock = fs::File::create(path.join("lock")).unwrap();
        lock.lock().unwrap();
        Self { path, _lock: lock }
    }

    /// Compiles what has changed of the sources; gives the results.
    fn compile(&self, compiler: &str, flags: &[&str], sources: &[PathBuf], extension: &str) -> Vec<PathBuf> {
        let includes = [room(), Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")];
        let result = |source: &PathBuf| {
            let text = format!("{compiler} {flags:?} {}", with_includes(source, &includes));
            self.path.join(format!("{}.{:016x}.{extension}", name_of(source), xxh3_64(text.as_bytes())))
        };
        let results: Vec<PathBuf> = sources.iter().map(result).collect();
        let todo: Vec<_> = sources.iter().zip(&results).filter(|(_, result)| !result.exists()).collect();
        in_parallel(&todo, |(source, result)| {
            let mut command = Command::new(compiler);
            command.args(flags).arg(source);
            includes.iter().for_each(|include| _ = command.arg("-I").arg(include));
            run(&mut command, result);
        });
        self.keep(&results, extension);
        results
    }

    /// Removes the other results.
    fn keep(&self, results: &[PathBuf], extension: &str) {
        list(&self.path, extension).iter().filter(|file| !results.contains(file)).for_each(|file| _ = fs::remove_file(file));
    }
}

fn name_of(source: &Path) -> String {
    source.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Runs a compiler under a name that is not yet the result's.
fn run(command: &mut Command, result: &Path) {
    let part = result.with_extension("part");
    let output = command.arg("-o").arg(&part).output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&part, result).unwrap();
}

/// Calls `f` on every item, as many at a time as there are processors.
fn in_parallel<T: Sync>(items: &[T], f: impl Fn(&T) + Sync) {
    let next = Mutex::new(items.iter());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(item) = { next.lock().unwrap().next() } {
                    f(item);
                }
            });
        }
    });
}

/// The text of a source and of all that it includes from the folders.
fn with_includes(source: &Path, folders: &[PathBuf]) -> String {
    let (mut texts, mut todo, mut seen) = (String::new(), vec![source.to_path_buf()], BTreeSet::new());
    while let Some(path) = todo.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for line in text.lines() {
            let Some(name) = line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) else { continue };
            todo.extend(folders.iter().map(|folder| folder.join(name)).find(|path| path.exists()));
        }
        texts += &text;
    }
    texts
}

fn list(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// Loads a library for the rest of the process; `global`: others may use its functions.
fn load(path: &Path, global: bool) -> &'static libloading::os::unix::Library {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: built from this repository; its initialisers only register kernels.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | if global { RTLD_GLOBAL } else { RTLD_LOCAL }) };
    Box::leak(Box::new(library.unwrap_or_else(|e| panic!("{}: {e}", path.display()))))
}

fn functions(library: &'static libloading::os::unix::Library) -> Library {
    macro_rules! get {
        // SAFETY: the types are those of memory.cpp.
        ($name:literal) => {
            *unsafe { library.get($name) }.unwrap()
        };
    }
    Library {
        create: get!("emulator_create"),
        destroy: get!("emulator_destroy"),
        error: get!("emulator_error"),
        schedule: get!("emulator_schedule"),
        allocate: get!("emulator_allocate"),
        free: get!("emulator_free"),
        upload: get!("emulator_upload"),
        download: get!("emulator_download"),
        copy: get!("emulator_copy"),
        clear: get!("emulator_clear"),
        launch: get!("emulator_launch"),
        reports: get!("emulator_reports"),
        measure: get!("emulator_measure"),
        costs: get!("emulator_costs"),
        load_compiled: get!("emulator_load_compiled"),
    }
}
