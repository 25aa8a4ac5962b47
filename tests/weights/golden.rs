//! With files that PyTorch and Lightning wrote (`exchange.py golden`), for machines that have neither.

use super::*;
use training_engine::engine::LoadOptions;

#[test]
fn a_checkpoint_of_lightning_gives_the_outputs_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let ckpt = unpacked("weights/lightning.ckpt.gz", folder.path());
    let reference = unpacked("weights/outputs.safetensors.gz", folder.path());
    let mut loaded = engine(folder.path(), &[]);
    let report = loaded.load_weights(&ckpt, &LoadOptions::default()).unwrap();
    assert!(report.missing.is_empty() && report.extra.is_empty());
    let worst = difference(&case(), loaded.model().session(), &reference);
    println!("outputs differ by {worst:.1e}");
    assert!(worst <= 1e-5, "{worst}");

    // Started from, and gone on from.
    let pretrained = engine(folder.path(), &[&format!("pretrained.path={}", ckpt.display())]);
    let resumed = engine(folder.path(), &[&format!("checkpoint={}", ckpt.display())]);
    assert!(buffers(&pretrained) == buffers(&loaded) && buffers(&resumed) == buffers(&loaded));
    assert_eq!((pretrained.trainer().state().epochs(), pretrained.trainer().state().step), (0, 0));
    assert_eq!((resumed.trainer().state().epochs(), resumed.trainer().state().step), (1, 1));
    let error = Engine::build(config(folder.path(), &["pretrained.path=absent.ckpt"]), None, Host::default()).err().unwrap().to_string();
    assert!(error.contains("absent.ckpt"), "{error}");
}

#[test]
fn parts_in_both_formats_of_pytorch_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let whole = unpacked("weights/lightning.ckpt.gz", folder.path());
    for name in ["weights/part.ckpt.gz", "weights/part_legacy.ckpt.gz"] {
        let part = unpacked(name, folder.path());
        let mut expected = engine(folder.path(), &[]);
        let initial = buffers(&expected);
        expected.load_weights(&whole, &LoadOptions::default()).unwrap();
        let path = format!("pretrained.path={}", part.display());
        let error = Engine::build(config(folder.path(), &[&path]), None, Host::default()).err().unwrap().to_string();
        assert!(error.contains("is missing (and"), "{error}");
        let partial = engine(folder.path(), &[&path, "pretrained.strict=false"]);
        let (ours, theirs) = (buffers(&partial), buffers(&expected));
        for p in partial.model().session().parameters().iter() {
            let place = usize::from(p.statistic);
            let expected = if p.len() <= 64 { &theirs[place] } else { &initial[place] };
            assert!(ours[place][p.range()] == expected[p.range()], "{name}: {}", p.name);
        }
    }
}
