//! Which device of the machine a run computes on.

use crate::{
    backend::{
        Backend, cpu,
        cuda::{self, Multiply, device::Device},
    },
    config::{Accelerator, Devices, MatmulPrecision, Precision, RunConfig},
    error::{Error, Result},
    graph::Scalar,
};

/// A backend for so many parameters and statistics, and which device it is and why, in words.
///
/// # Errors
/// [`Error::Config`] where the configuration asks for what is not there; [`Error::Backend`] of a GPU that fails.
pub fn open(run: &RunConfig, parameters: usize, statistics: usize) -> Result<(Box<dyn Backend>, String)> {
    let on_cpu = |scalar, reason: &str| {
        let name = if scalar == Scalar::F32 { "32" } else { "64" };
        let description = format!("computing on the CPU in precision {name}{reason}");
        Ok((cpu::new(scalar, run.threads, parameters, statistics)?, description))
    };
    let no_gpu = |key: &str, what: &str, reason: &str| {
        Err(Error::config(format!("lightning.trainer.params.{key}"), format!("{what}, but {reason}")))
    };
    match (run.accelerator, run.precision) {
        (Accelerator::Cpu, Precision::HalfMixed) => no_gpu("precision", "16-mixed needs a GPU", "the accelerator is the CPU"),
        (Accelerator::Cpu, Precision::BrainMixed) => no_gpu("precision", "bf16-mixed needs a GPU", "the accelerator is the CPU"),
        (Accelerator::Gpu, Precision::Double) => no_gpu("precision", "64 was asked for", "a GPU computes in 32, 16-mixed or bf16-mixed"),
        (Accelerator::Cpu, Precision::Single) => on_cpu(Scalar::F32, ""),
        (Accelerator::Cpu, Precision::Double) => on_cpu(Scalar::F64, ""),
        (Accelerator::Auto, Precision::Double) => on_cpu(Scalar::F64, ", which a GPU does not have"),
        (accelerator, precision) => match (gpu(run)?, accelerator, precision) {
            (Ok(Gpu { device, number, count }), ..) => {
                let multiply = match precision {
                    Precision::HalfMixed => Multiply::F16,
                    Precision::BrainMixed => Multiply::Bf16,
                    Precision::Single | Precision::Double => multiply(run.matmul_precision),
                };
                let description = format!("computing on {}, device {number} of {count}; {}", device.describe(), multiply.describe());
                Ok((cuda::with_device(device, multiply, parameters, statistics)?, description))
            }
            (Err(reason), Accelerator::Gpu, _) => no_gpu("accelerator", "gpu was asked for", &reason.to_string()),
            (Err(reason), _, Precision::HalfMixed) => no_gpu("precision", "16-mixed needs a GPU", &reason.to_string()),
            (Err(reason), _, Precision::BrainMixed) => no_gpu("precision", "bf16-mixed needs a GPU", &reason.to_string()),
            (Err(reason), ..) => on_cpu(Scalar::F32, &format!(", no GPU can be used: {reason}")),
        },
    }
}

/// A GPU that kernels can run on, and which of how many it is.
struct Gpu {
    device: Box<dyn Device>,
    number: usize,
    count: usize,
}

/// The one that the configuration names, or why none can be used.
///
/// # Errors
/// [`Error::Config`] if there are GPUs, but not this one.
fn gpu(run: &RunConfig) -> Result<Result<Gpu>> {
    let number = if let Devices::These(numbers) = &run.devices { numbers[0] } else { 0 };
    match cuda::available() {
        Ok(count) if number >= count => {
            let reason = format!("device {number} was asked for, but there are {count}, counted from 0");
            Err(Error::config("lightning.trainer.params.devices", reason))
        }
        found => Ok(found.and_then(|count| Ok(Gpu { device: cuda::device(number)?, number, count }))),
    }
}

fn multiply(precision: MatmulPrecision) -> Multiply {
    match precision {
        MatmulPrecision::Highest => Multiply::Tf32x3,
        MatmulPrecision::High => Multiply::Tf32,
        MatmulPrecision::Medium => Multiply::Bf16,
    }
}

/// Compute capabilities of GPUs that the library holds code for; none if it was built without nvcc.
pub fn cuda_architectures() -> Vec<&'static str> {
    cuda::kernels::architectures().split(',').filter(|number| !number.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(change: impl FnOnce(&mut RunConfig)) -> Result<(&'static str, String)> {
        let mut run = RunConfig { threads: 1, ..RunConfig::default() };
        change(&mut run);
        open(&run, 3, 1).map(|(backend, description)| (backend.name(), description))
    }

    #[test]
    fn auto_takes_the_cpu_without_a_gpu_and_says_why() {
        let (name, description) = opened(|_| {}).unwrap();
        match cuda::available() {
            Ok(_) => assert!(name == "cuda" && description.contains("device 0"), "{description}"),
            Err(reason) => {
                let Error::Backend(reason) = reason else { panic!("{reason}") };
                assert!(name == "cpu" && description.contains("no GPU can be used") && description.contains(&reason), "{description}");
            }
        }
        let (name, description) = opened(|run| run.accelerator = Accelerator::Cpu).unwrap();
        assert_eq!((name, description.as_str()), ("cpu", "computing on the CPU in precision 32"));
        let (name, description) = opened(|run| run.precision = Precision::Double).unwrap();
        assert!(name == "cpu" && description.contains("precision 64"), "{description}");
    }

    #[test]
    fn what_is_not_there_is_an_error_that_explains() {
        let key = |result: Result<(&'static str, String)>| match result {
            Err(Error::Config { key, reason }) => (key.rsplit('.').next().unwrap_or_default().to_owned(), reason),
            other => panic!("{other:?}"),
        };
        if let Err(why) = cuda::available() {
            for (change, named) in [
                ((|run| run.accelerator = Accelerator::Gpu) as fn(&mut RunConfig), "accelerator"),
                (|run| run.precision = Precision::BrainMixed, "precision"),
                (|run| run.precision = Precision::HalfMixed, "precision"),
            ] {
                let (key, reason) = key(opened(change));
                assert!(key == named && why.to_string().contains(reason.rsplit("but ").next().unwrap_or("?")), "{key}: {reason}");
            }
        }
        let double = |run: &mut RunConfig| (run.accelerator, run.precision) = (Accelerator::Gpu, Precision::Double);
        assert_eq!(key(opened(double)).0, "precision");
        for precision in [Precision::HalfMixed, Precision::BrainMixed] {
            let on_cpu = opened(|run| (run.accelerator, run.precision) = (Accelerator::Cpu, precision));
            assert_eq!(key(on_cpu).0, "precision");
        }
    }
}
