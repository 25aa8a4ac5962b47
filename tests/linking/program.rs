//! The first program of the README, linked with the library as it says there.

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// What a command prints.
///
/// # Panics
/// It fails: with all that it said.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// `accelerator.cpp`, in a folder of its own, or the program that `TE_LINKED_PROGRAM` names.
pub struct Program {
    folder: TempDir,
    path: PathBuf,
}

impl Program {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(path) = std::env::var_os("TE_LINKED_PROGRAM") {
            return Self { folder, path: path.into() };
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // Cargo leaves it beside the tests.
        let library = std::env::current_exe().unwrap().with_file_name("libtraining_engine.a");
        let program = Self { path: folder.path().join("accelerator"), folder };
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O1", "-I"]).arg(root.join("include")).arg(root.join("tests/linking/accelerator.cpp")).arg(library);
        run(compiler.args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc", "-o"]).arg(program.path()));
        program
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Runs on an accelerator, with more configuration; each run in a folder of its own.
    pub fn on(&self, accelerator: &str, configuration: &str) -> Command {
        let mut command = Command::new(self.path());
        command.args([accelerator, configuration]).current_dir(tempfile::tempdir_in(self.folder.path()).unwrap().keep());
        command
    }
}
