//! A linked program on the NVIDIA driver as the emulated device has it: what the library asks of a driver, in which order, what it gives back,
//! and what it says where the driver or the device fails. Without nvcc in the build there are no kernels that a driver could load. With
//! `TE_TEST_DEVICE=gpu` it trains on the GPU of the machine.
#![cfg(target_os = "linux")]

mod device;
mod linking {
    pub mod program;
}

use linking::program::{Program, run};
use std::fs;
use training_engine::backend::cuda::kernels;

/// What the program prints on an accelerator with more configuration, and what the driver has to say of it.
fn on(accelerator: &str, program: &Program, configuration: &str, options: &str) -> (String, String) {
    let mut command = program.on(accelerator, configuration);
    let log = command.get_current_dir().unwrap().join("driver.log");
    if !device::is_gpu() {
        command.envs(device::emulator::build::driver()).env("EMULATED_DRIVER", format!("log={} {options}", log.display()));
    }
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
        format!(", lr: 1e-4, lightning: {{trainer: {{params: {{{limits}, detect_anomaly: {watched}}}}}}}, {callbacks}")
    };
    let (program, plain) = (Program::new(), short(false, 0));
    let expected = numbers(&run(&mut program.on("cpu", &plain)));
    assert!(["test/minFDE", "candidate/x"].iter().all(|name| expected.iter().any(|(found, _)| found == name)), "{expected:?}");
    let (watched, profiled) = (short(true, 0), short(false, 2));
    let orders = [(&plain, "order=early"), (&plain, "order=beside shared=101376")];
    let mut first = None;
    for (configuration, options) in [(&plain, "order=late"), (&watched, ""), (&profiled, "")].into_iter().chain(orders) {
        let (printed, said) = on("gpu", &program, configuration, options);
        let name = if device::is_gpu() { "(compute capability " } else { "Emulated GPU (compute capability 9.0)" };
        assert!(printed.contains("trained: 3 steps") && printed.contains(name), "{options}: {printed}");
        let gave_back = said.contains("ended after ") && !said.contains("not given back");
        assert!(gave_back || device::is_gpu(), "{configuration} {options}: {said}");
        let found = numbers(&printed);
        assert_eq!(found.len(), expected.len(), "{printed}");
        for ((name, value), (_, of_cpu)) in found.iter().zip(&expected) {
            // Metres. Adam's first steps are as long where a gradient is nothing but rounding: at this rate a candidate's end moves by a
            // millimetre, and by 4 cm at ten times the rate.
            let close = (value - of_cpu).abs() <= 1e-3 * of_cpu.abs().max(10.0);
            assert!(close, "{configuration} {options}: {name} is {value}, {of_cpu} on the CPU");
        }
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{configuration} {options}");
    }
}

#[test]
fn a_driver_or_device_that_is_no_use_is_an_error_that_explains() {
    if device::is_gpu() || !has_kernels() {
        return;
    }
    let program = Program::new();
    let too_old = format!("the driver is for CUDA 11.8, {}.0 is needed", kernels::compiler().max(12));
    let of_no_use = [
        ("devices=0", "the driver knows of no device"),
        ("version=11080", &too_old),
        ("capability=75", "Emulated GPU has compute capability 7.5, 8.0 is needed"),
        ("images=0", "device kernel image is invalid"),
    ];
    for (options, why) in of_no_use {
        let (printed, said) = on("auto", &program, "", options);
        let chosen =
            printed.lines().find(|line| line.starts_with("log: computing on the CPU")).unwrap_or_else(|| panic!("{options}: {printed}"));
        assert!(chosen.contains("no GPU can be used: ") && chosen.contains(why), "{options}: {chosen}");
        assert!(printed.contains("trained: 4 steps") && !said.contains("not given back"), "{options}: {printed}{said}");
    }
    for accelerator in ["auto", "gpu"] {
        let (printed, _) = on(accelerator, &program, ", devices: [1]", "");
        assert!(printed.contains("error: ") && printed.contains("device 1 was asked for, but there are 1"), "{printed}");
    }
    for (options, why) in of_no_use.into_iter().chain([
        ("memory=1000000", "has 1 MiB of 1 MiB free, 9 MiB are needed"),
        ("memory=12000000", "are needed for"),
        ("shared=40000", "bytes of shared memory for '"),
        ("fault=150", "an illegal memory access was encountered (error 700)"),
        ("fault=150 error=226", "unknown error (error 226)"),
    ]) {
        let (printed, _) = on("gpu", &program, "", options);
        let error = printed.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{options}: {printed}"));
        assert!(error.contains(why), "{options}: {error}");
    }
}
