//! A program that is linked with the library as the README says needs nothing of CUDA to start, and does without a driver: `auto` trains on
//! the CPU and says so, `gpu` is an error that explains.

mod linking {
    pub mod program;
}

use linking::program::{Program, run};
use std::process::Command;

/// What the program prints on an accelerator, on a machine that shows it no GPU.
fn prints(program: &Program, accelerator: &str) -> String {
    run(program.on(accelerator, "").env("CUDA_VISIBLE_DEVICES", ""))
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_of_cuda_is_needed_to_start() {
    let program = Program::new();
    let is_cuda = |line: &&str| ["libcu", "nvrtc", "nvidia", "nvcuda"].iter().any(|name| line.to_lowercase().contains(name));
    let needed = run(Command::new("ldd").arg(program.path()));
    assert!(needed.contains("libc.so"), "{needed}");
    assert_eq!(needed.lines().find(is_cuda), None);
    let undefined = run(Command::new("nm").args(["--undefined-only", "--dynamic"]).arg(program.path()));
    assert!(undefined.contains("malloc"), "{undefined}");
    // The driver's and the runtime's functions are cuInit, cudaMalloc, nvrtcCompileProgram ...
    let is_function_of_cuda = |name: &&str| {
        let rest = ["cuda", "cu", "nvrtc"].iter().find_map(|front| name.strip_prefix(front));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    assert_eq!(undefined.split_whitespace().find(is_function_of_cuda), None);

    let printed = prints(&program, "auto");
    assert!(printed.contains("trained: 4 steps"), "{printed}");
    let said = printed.lines().find(|line| line.starts_with("log: computing on the CPU")).unwrap_or_else(|| panic!("{printed}"));
    assert!(said.contains("no GPU can be used: "), "{said}");
    let why = said.split("no GPU can be used: ").nth(1).unwrap_or_default();

    let printed = prints(&program, "gpu");
    let error = printed.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{printed}"));
    assert!(error.contains("accelerator") && error.contains("gpu was asked for") && error.contains(why), "{error}; {why}");
    assert!(!printed.lines().any(|line| line.starts_with("trained: ")), "{printed}");

    let printed = prints(&program, "cpu");
    assert!(printed.contains("trained: 4 steps") && printed.contains("log: computing on the CPU in precision 32\n"), "{printed}");
}
