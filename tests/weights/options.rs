//! Prefixes, tensors that are missing or extra, formats by name.

use super::*;
use training_engine::{
    engine::{LoadOptions, SaveOptions},
    error::Error,
    trainer::weights,
};

#[test]
fn both_formats_bring_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for precision in ["precision=32", "precision=64"] {
        let trained = engine(folder.path(), &["seed=1", precision]);
        for name in ["w.ckpt", "w.safetensors", "W.CKPT", "weights"] {
            let path = folder.path().join(name);
            trained.save_weights(&path, &SaveOptions::default()).unwrap();
            let is_zip = std::fs::read(&path).unwrap().starts_with(b"PK");
            assert_eq!(is_zip, name.to_lowercase().ends_with("ckpt"), "{name}");
            let mut other = engine(folder.path(), &["seed=2", precision]);
            assert!(buffers(&other) != buffers(&trained));
            other.load_weights(&path, &LoadOptions::default()).unwrap();
            assert!(buffers(&other) == buffers(&trained), "{name}");
        }
    }
    let with_optimizer = SaveOptions { optimizer: true, ..SaveOptions::default() };
    let refused = engine(folder.path(), &[]).save_weights(&folder.path().join("w.safetensors"), &with_optimizer);
    assert!(matches!(refused, Err(Error::Argument(_))));
}

#[test]
fn prefixes_are_taken_off_and_put_on() {
    let folder = tempfile::tempdir().unwrap();
    let trained = engine(folder.path(), &["seed=1"]);
    for name in ["w.ckpt", "w.safetensors"] {
        let path = folder.path().join(name);
        trained.save_weights(&path, &SaveOptions { prefix: Some("ego.net.".into()), optimizer: false }).unwrap();
        let load = |strip: Option<&str>, add: &str| {
            let mut other = engine(folder.path(), &[]);
            let options = LoadOptions { strip_prefix: strip.map(str::to_owned), add_prefix: add.into(), strict: true };
            other.load_weights(&path, &options).map(|_| buffers(&other) == buffers(&trained))
        };
        assert_eq!(load(Some("ego.net."), ""), Ok(true));
        let error = load(None, "").unwrap_err().to_string();
        assert!(error.contains("tensor 'ego.net.agent_encoder") && error.contains("is none of this model (and"), "{error}");
        assert!(load(Some("ego.net."), "x.").unwrap_err().to_string().contains("tensor 'x."));
    }
    // Taken off and put on: what another file calls its own.
    let path = folder.path().join("w.safetensors");
    let whole = LoadOptions { strip_prefix: Some("ego.".into()), ..LoadOptions::default() };
    assert!(engine(folder.path(), &[]).load_weights(&path, &whole).unwrap_err().to_string().contains("'net."));
}

#[test]
fn what_is_missing_or_extra_is_reported_and_misshapen_never_taken() {
    let folder = tempfile::tempdir().unwrap();
    let deep = engine(folder.path(), &["seed=1", "model.encoder_depth=2"]);
    for name in ["w.ckpt", "w.safetensors"] {
        let path = folder.path().join(name);
        deep.save_weights(&path, &SaveOptions::default()).unwrap();
        let partial = LoadOptions { strict: false, ..LoadOptions::default() };

        let mut shallow = engine(folder.path(), &["seed=2", "model.ref_free_traj=true"]);
        let before = buffers(&shallow);
        let error = shallow.load_weights(&path, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("tensor 'encoder_blocks.1.attn.in_proj_bias' is none of this model (and 11 more)"), "{error}");
        assert!(buffers(&shallow) == before);
        let report = shallow.load_weights(&path, &partial).unwrap();
        assert_eq!(report.extra.len(), 12);
        assert!(report.extra.iter().all(|name| name.starts_with("encoder_blocks.1.")), "{:?}", report.extra);
        assert_eq!(report.missing.len(), 6);
        assert!(report.missing.iter().all(|name| name.starts_with("ref_free_decoder.")), "{:?}", report.missing);
        let (after, theirs) = (buffers(&shallow), buffers(&deep));
        for p in shallow.model().session().parameters().iter().filter(|p| !p.statistic) {
            let kept = p.name.starts_with("ref_free_decoder.");
            let expected = match deep.model().session().parameters().get(&p.name) {
                Some(theirs_p) if !kept => &theirs[0][theirs_p.range()],
                _ => &before[0][p.range()],
            };
            assert!(after[0][p.range()] == *expected, "{}", p.name);
        }

        let mut wide = engine(folder.path(), &["model.dim=64"]);
        let before = buffers(&wide);
        let error = wide.load_weights(&path, &partial).unwrap_err().to_string();
        assert!(error.contains("has shape [") && error.contains("tensor '"), "{error}");
        let strange = LoadOptions { add_prefix: "x.".into(), ..partial };
        assert!(wide.load_weights(&path, &strange).unwrap_err().to_string().contains("has no tensor of this model"));
        assert!(buffers(&wide) == before);
    }
}

#[test]
fn a_lightning_checkpoint_is_gone_on_with_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (session, ended) = trained(&case());
    // The second schedule takes steps of batches.
    let module = ModuleState { updates: 7, schedule: 4 };
    let within = State { epoch: 1, batch: 3, epoch_ended: false, batches: 8, step: 7, module, ..ended.clone() };
    let ckpt = folder.path().join("run.ckpt");
    let options = SaveOptions { optimizer: true, ..SaveOptions::default() };
    for (state, expected) in [(ended, (3, 0, 15, 15)), (within, (1, 3, 8, 7))] {
        let module = state.module;
        weights::save(&ckpt, &session, &config(folder.path(), &[]), &state, &options).unwrap();
        let checkpoint = format!("checkpoint={}", ckpt.display());
        let again = engine(folder.path(), &[&checkpoint]);
        let back = again.trainer().state();
        assert_eq!((back.epochs(), back.batch, back.batches, back.step), expected);
        assert_eq!(back.module, module);
        let whole = [Buffer::Parameters, Buffer::Statistics, Buffer::FirstMoments, Buffer::SecondMoments].map(|b| session.read(b).unwrap());
        assert!(buffers(&again) == whole);

        // Frozen parameters have no moments that would move them.
        let frozen = engine(folder.path(), &[&checkpoint, "freeze=[map_encoder]"]);
        let first = &buffers(&frozen)[2];
        for p in frozen.model().session().parameters().iter().filter(|p| !p.statistic) {
            let moments = &first[p.range()];
            let still = p.name.starts_with("map_encoder.");
            assert!(if still { moments.iter().all(|m| *m == 0.0) } else { *moments == whole[2][p.range()] }, "{}", p.name);
        }
    }
    // Without the optimiser's state, or with that of another model: weights and position alone.
    let (session, state) = trained(&case());
    weights::save(&ckpt, &session, &config(folder.path(), &[]), &state, &SaveOptions::default()).unwrap();
    let again = engine(folder.path(), &[&format!("checkpoint={}", ckpt.display())]);
    assert!(buffers(&again)[0] == session.read(Buffer::Parameters).unwrap() && buffers(&again)[2].iter().all(|m| *m == 0.0));
    assert_eq!((again.trainer().state().step, again.trainer().state().module.updates), (15, 0));
}
