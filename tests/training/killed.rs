//! Runs that are killed at random moments and gone on with end as if nothing had happened.

use super::*;
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use training_engine::graph::random;

/// Folder and variant of the run that this process is to do.
const FOLDER: &str = "TE_TEST_RUN_FOLDER";
const VARIANT: &str = "TE_TEST_RUN_VARIANT";

/// Three ways to train: checkpoints after every step; amid accumulations and with several validations; ended by early stopping.
const VARIANTS: [&[&str]; 3] = [
    &["lightning.trainer.checkpoint.every_n_train_steps=1", "lightning.trainer.checkpoint.every_n_epochs=1"],
    &[
        "lightning.trainer.params.accumulate_grad_batches=2",
        "lightning.trainer.params.val_check_interval=3",
        "lightning.trainer.checkpoint.save_top_k=3",
        "num_workers=1",
    ],
    &[
        "lightning.trainer.checkpoint.every_n_train_steps=2",
        "lightning.trainer.checkpoint.save_top_k=2",
        "callbacks.early_stopping.monitor=loss/val_loss",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=1000.0",
    ],
];

/// The run itself, in a process of its own, which the test below starts and kills.
fn run(folder: &Path) {
    let variant: usize = std::env::var(VARIANT).unwrap().parse().unwrap();
    let mut overrides = vec!["checkpoint=last", "epochs=3"];
    overrides.extend(VARIANTS[variant]);
    let mut engine = engine(config(folder, &overrides), Roads::new(20), Host::default());
    let report = engine.fit().unwrap();
    let state = engine.trainer().state();
    let bits: Vec<Vec<u64>> = buffers(&engine).iter().map(|buffer| buffer.iter().map(|x| x.to_bits()).collect()).collect();
    // The best ones by name, not by the folder.
    let best = Path::new(&report.best_checkpoint).file_name().map(|name| name.to_owned());
    let result = format!(
        "{bits:?}\n{:?}\n{:?} {:?}\n{:?}",
        (state.epoch, state.batch, state.batches, state.step, state.stepped, report.epochs, report.stopped),
        (&state.tally, &state.metrics, &state.epoch_metrics),
        (best, report.best_score),
        checkpoints(folder).iter().map(|name| (name, weights(folder, name))).collect::<Vec<_>>(),
    );
    std::fs::write(folder.join("writing"), result).unwrap();
    std::fs::rename(folder.join("writing"), folder.join("done")).unwrap();
}

/// The tensors of a checkpoint, which follow its header of text.
fn weights(folder: &Path, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(folder.join("checkpoints").join(name)).unwrap();
    bytes[u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8..].to_vec()
}

fn start(folder: &Path, variant: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "killed::thirty_killed_runs_end_as_if_nothing_had_happened"]);
    command.env(FOLDER, folder).env(VARIANT, variant.to_string()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a run; gives its result.
fn finish(child: Child, folder: &Path) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(folder.join("done")).unwrap()
}

/// Kills ten runs and goes on with them; gives how many had written a checkpoint by then.
fn kill_ten(variant: usize) -> usize {
    let mut amid = 0;
    let whole = tempfile::tempdir().unwrap();
    let clock = Instant::now();
    let expected = finish(start(whole.path(), variant), whole.path());
    let mut length = clock.elapsed().as_secs_f64();
    for run in 0..10 {
        let share = f64::from(random::philox([run, variant as u32, 0, 0], [5, 9])[0]) / f64::from(u32::MAX);
        let folder = loop {
            let folder = tempfile::tempdir().unwrap();
            let mut child = start(folder.path(), variant);
            std::thread::sleep(Duration::from_secs_f64(length * share));
            child.kill().unwrap();
            if !child.wait().unwrap().success() {
                break folder;
            }
            // The machine is less busy than it was.
            length *= 0.8;
        };
        amid += usize::from(folder.path().join("checkpoints").exists());
        let result = finish(start(folder.path(), variant), folder.path());
        // Too long to be shown in whole.
        for (line, (result, expected)) in result.lines().zip(expected.lines()).enumerate() {
            let place = result.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            let part = |text: &str| text.chars().skip(place.saturating_sub(40)).take(120).collect::<String>();
            assert!(
                result == expected,
                "variant {variant}, run {run}, killed after {:.2} of {length:.2} s: line {line}: {} instead of {}",
                length * share,
                part(result),
                part(expected)
            );
        }
    }
    amid
}

#[test]
fn thirty_killed_runs_end_as_if_nothing_had_happened() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return run(Path::new(&folder));
    }
    let amid: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..VARIANTS.len()).map(|variant| scope.spawn(move || kill_ten(variant))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert!(amid >= 10, "{amid} of 30 were killed after a checkpoint");
}
