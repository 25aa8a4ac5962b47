//! A program on the NVIDIA driver as the emulated device has it: what the library asks of a driver, in which order, what it gives back, and what
//! it says where the driver or the device fails. Without nvcc in the build there are no kernels that a driver could load.
#![cfg(target_os = "linux")]

#[path = "emulator/mod.rs"]
mod emulator;
mod linking {
    pub mod program;
}

use linking::program::{Program, run};
use std::fs;
use training_engine::backend::cuda::kernels;

/// What the program prints on a GPU with more configuration, and what the driver has to say of it.
fn on_gpu(program: &Program, configuration: &str, options: &str) -> (String, String) {
    let mut command = program.on("gpu", configuration);
    let log = command.get_current_dir().unwrap().join("driver.log");
    command.envs(emulator::build::driver()).env("EMULATED_DRIVER", format!("log={} {options}", log.display()));
    let printed = run(&mut command);
    (printed, fs::read_to_string(log).unwrap_or_default())
}

/// Measures of the test, and where the candidates of a prediction end, by name.
fn numbers(printed: &str) -> Vec<(String, f64)> {
    let is_number = |name: &str| name.starts_with("test/") || name == "candidate/x";
    let numbers = printed.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| is_number(name));
    numbers.map(|(name, value)| (name.into(), value.parse().unwrap())).collect()
}

/// Whether there are kernels; else it says so.
fn has_kernels() -> bool {
    let has = !kernels::images().is_empty();
    if !has {
        println!("skipped: the build had no nvcc");
    }
    has
}

/// Whatever of what is under way happens when, and whether the plan is replayed, watched or profiled.
#[test]
fn every_order_of_work_trains_alike_and_gives_all_back() {
    if !has_kernels() {
        return;
    }
    let short = |watched: bool, profiled: u32| {
        let limits = "limit_train_batches: 3, limit_val_batches: 1, limit_test_batches: 1";
        let callbacks = format!("callbacks: {{profile_callback: {{steps: {profiled}}}}}");
        format!(", lightning: {{trainer: {{params: {{{limits}, detect_anomaly: {watched}}}}}}}, {callbacks}")
    };
    let (program, plain) = (Program::new(), short(false, 0));
    let expected = numbers(&run(&mut program.on("cpu", &plain)));
    assert!(["test/minFDE", "candidate/x"].iter().all(|name| expected.iter().any(|(found, _)| found == name)), "{expected:?}");
    let mut first = None;
    for (configuration, options) in [
        (&plain, "order=late"),
        (&plain, "order=early"),
        (&plain, "order=beside shared=101376"),
        (&short(true, 0), ""),
        (&short(false, 2), ""),
    ] {
        let (printed, said) = on_gpu(&program, configuration, options);
        assert!(printed.contains("trained: 3 steps") && printed.contains("Emulated GPU (compute capability 9.0)"), "{options}: {printed}");
        assert!(said.contains("ended after ") && !said.contains("not given back"), "{configuration} {options}: {said}");
        let found = numbers(&printed);
        assert_eq!(found.len(), expected.len(), "{printed}");
        for ((name, value), (_, of_cpu)) in found.iter().zip(&expected) {
            // Metres. Adam's first steps are as long where a gradient is nothing but rounding: a candidate's end moves by millimetres.
            let close = (value - of_cpu).abs() <= 1e-3 * of_cpu.abs().max(10.0);
            assert!(close, "{configuration} {options}: {name} is {value}, {of_cpu} on the CPU");
        }
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{configuration} {options}");
    }
}

#[test]
fn a_driver_or_device_that_is_no_use_is_an_error_that_explains() {
    if !has_kernels() {
        return;
    }
    let program = Program::new();
    for (options, why) in [
        ("devices=0", "the driver knows of no device"),
        ("version=11080", "the driver is for CUDA 11.8, 12.0 is needed"),
        ("capability=75", "Emulated GPU has compute capability 7.5, 8.0 is needed"),
        ("memory=1000000", "has 1 MiB of 1 MiB free, 9 MiB are needed"),
        ("memory=12000000", "are needed for"),
        ("shared=40000", "bytes of shared memory for '"),
        ("fault=150", "an illegal memory access was encountered"),
    ] {
        let (printed, _) = on_gpu(&program, "", options);
        let error = printed.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{options}: {printed}"));
        assert!(error.contains(why), "{options}: {error}");
    }
}
