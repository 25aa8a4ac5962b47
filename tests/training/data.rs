//! Which scenarios a run uses, in which order, and how much memory loading takes.

use super::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};
use training_engine::{
    data::{DataModule, Loader, StopHandle},
    scenario::Split,
};

/// The data of a configuration, all scenarios for training.
fn data(source: &Arc<Roads>, overrides: &[&str]) -> training_engine::error::Result<DataModule> {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), overrides);
    let model = training_engine::engine::build_model(&config).unwrap();
    training_engine::engine::build_datamodule(&config, Some(source.clone()), &model, &Host::default())
}

fn roads(scenarios: usize) -> Arc<Roads> {
    let mut source = Roads::new(scenarios);
    source.split = Some(Split::Train);
    source.labelled = true;
    Arc::new(source)
}

/// Tokens of all batches, given back at once.
fn tokens(mut loader: Loader) -> Vec<String> {
    let mut tokens = Vec::new();
    while let Some(loaded) = loader.next() {
        if let Some(batch) = loaded.unwrap().batch {
            tokens.extend(batch.tokens.iter().cloned());
            loader.recycle(batch);
        }
    }
    tokens
}

#[test]
fn filters_that_look_at_scenarios() {
    for (thread_safe, workers) in [(true, "num_workers=3"), (false, "num_workers=3"), (true, "num_workers=0")] {
        let mut source = Roads::new(40);
        source.split = Some(Split::Train);
        source.thread_safe = thread_safe;
        source.failing.insert(7);
        source.invalid.insert(9);
        let source = Arc::new(source);
        // The ego drives at a constant speed for 8 s.
        let distances: Vec<f64> = (0..40).map(|i| source.scenario(i).ego[0]).map(|ego| 8.0 * ego.vx.hypot(ego.vy)).collect();
        let count = |least: f64| {
            let filter = format!("scenario_filter.ego_displacement_minimum_m={least}");
            data(&source, &[workers, &filter]).unwrap().len(Split::Train)
        };
        let expected = |least: f64| (0..40).filter(|&i| i == 7 || i == 9 || distances[i] >= least).count();
        for least in [40.0, 60.0, 80.0] {
            assert_eq!(count(least), expected(least), "{least} m; those that cannot be used stay");
        }
        if !thread_safe {
            assert_eq!(*source.threads.lock().unwrap(), [std::thread::current().id()].into());
        }
        let len = |filter: &str| data(&source, &[workers, filter]).map(|data| data.len(Split::Train));
        assert_eq!(len("scenario_filter.ego_start_speed_threshold=6.0"), Ok(2), "nobody but they, of whom that is not known, starts");
        assert_eq!(len("scenario_filter.ego_stop_speed_threshold=6.0"), Ok(2));
        assert_eq!(len("scenario_filter.ego_route_radius=10"), Ok(40), "all are on their route");
    }
}

#[test]
fn fractions_and_filters_choose_and_what_cannot_be_had_is_an_error() {
    let source = roads(30);
    let len = |overrides: &[&str]| data(&source, overrides).map(|data| data.len(Split::Train)).map_err(|e| e.to_string());
    assert_eq!(len(&["data_loader.datamodule.train_fraction=0.5"]), Ok(15));
    assert_eq!(len(&["scenario_filter.scenario_types=[waiting]"]), Ok(10));
    assert_eq!(len(&["scenario_filter.scenario_types=[waiting]", "data_loader.datamodule.train_fraction=0.25"]), Ok(2));
    assert_eq!(len(&["scenario_filter.scenario_tokens=[['log 3', 'scenario 3'], ['log 3', 'scenario 4'], 'scenario 9']"]), Ok(2));
    assert_eq!(len(&["scenario_filter.limit_total_scenarios=0.5", "scenario_filter.shuffle=true"]), Ok(15));
    assert_eq!(len(&["scenario_filter.limit_total_scenarios=1", "scenario_filter.expand_scenarios=true"]), Ok(1));
    assert!(len(&["scenario_filter.scenario_types=[flying]"]).unwrap_err().contains("none of 30 scenarios"));
    assert!(len(&["scenario_filter.map_names=[town]"]).unwrap_err().contains("scenario_filter.map_names"));
    let refused = Config::from_text("scenario_filter: {token_set_path: tokens.json}", &[]).unwrap_err().to_string();
    assert!(refused.contains("scenario_filter.token_set_path") && refused.contains("frames"), "{refused}");
}

#[test]
fn a_scenario_that_is_drawn_twice_is_augmented_in_two_ways() {
    let source = roads(20);
    let weighted = "scenario_type_weights.scenario_type_sampling_weights.enable=true";
    let overrides = [&contrastive::CONTRASTIVE[..], &[weighted, "data_loader.params.batch_size=1"]].concat();
    let epoch = || {
        let data = data(&source, &overrides).unwrap();
        let batches = data.training_pass(0, 0, &StopHandle::default()).unwrap().map(|loaded| loaded.unwrap().batch.unwrap());
        batches.collect::<Vec<_>>()
    };
    let batches = epoch();
    let again = |i: usize| (0..i).find(|&j| batches[j].tokens == batches[i].tokens);
    let pairs: Vec<_> = (0..batches.len()).filter_map(|i| Some((again(i)?, i))).collect();
    assert!(pairs.len() > 3 && pairs.iter().all(|&(i, j)| batches[i].feed != batches[j].feed), "{pairs:?}");
    assert!(epoch() == batches, "as it repeats");
}

#[test]
fn epochs_are_drawn_by_the_weights_of_types() {
    let source = roads(60);
    let group = "scenario_type_weights.scenario_type_sampling_weights";
    let weights = |waiting: f64| [format!("{group}.enable=true"), format!("{group}.scenario_type_weights.waiting={waiting}")];
    let drawn = |waiting: f64, epoch: usize| {
        let weights = weights(waiting);
        let data = data(&source, &[&weights[0], &weights[1]]).unwrap();
        tokens(data.training_pass(epoch, 0, &StopHandle::default()).unwrap())
    };
    let waiting = |tokens: &[String]| tokens.iter().filter(|token| token[9..].parse::<usize>().unwrap() % 3 == 0).count();
    let first = drawn(0.0, 0);
    assert_eq!((first.len(), waiting(&first)), (60, 0));
    assert!(first.iter().collect::<BTreeSet<_>>().len() < 40, "with replacement");
    let many = drawn(1e6, 0);
    assert_eq!((many.len(), waiting(&many)), (60, 60));
    assert_eq!(drawn(1e6, 0), many);
    assert_ne!(drawn(1e6, 1), many);
    let none = [weights(0.0).to_vec(), vec![format!("{group}.scenario_type_weights.following=0")]].concat();
    let data = data(&source, &none.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert!(data.training_pass(0, 0, &StopHandle::default()).err().unwrap().to_string().contains("scenario_type_weights"));
}

#[test]
fn ranks_share_an_epoch() {
    let source = roads(26);
    let whole = tokens(data(&source, &["drop_last=false"]).unwrap().training_pass(3, 0, &StopHandle::default()).unwrap());
    assert_eq!(whole.len(), 26);
    for ranks in 1..4 {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for rank in 0..ranks {
            let data = data(&source, &["drop_last=false"]).unwrap().for_rank(rank, ranks).unwrap();
            let part = tokens(data.training_pass(3, 0, &StopHandle::default()).unwrap());
            assert_eq!(part.len(), 26_usize.div_ceil(ranks));
            assert_eq!(data.batches(Split::Train), Ok(part.len().div_ceil(4)));
            assert!(part.iter().enumerate().all(|(i, token)| *token == whole[(i * ranks + rank) % 26]));
            part.into_iter().for_each(|token| *seen.entry(token).or_default() += 1);
            // Where a pass begins in the middle, it goes on as the whole one does.
            assert_eq!(
                tokens(data.training_pass(3, 2, &StopHandle::default()).unwrap()),
                tokens(data.training_pass(3, 0, &StopHandle::default()).unwrap())[8..]
            );
        }
        assert_eq!(seen.len(), 26);
        assert_eq!(seen.values().sum::<usize>(), 26_usize.next_multiple_of(ranks));
    }
    assert!(data(&source, &[]).unwrap().for_rank(2, 2).is_err());
}

#[test]
fn no_more_batches_than_promised_are_in_memory() {
    for (workers, most) in [(0, 1), (1, 4), (3, 10)] {
        for thread_safe in [true, false] {
            let mut source = Roads::new(80);
            source.split = Some(Split::Train);
            source.thread_safe = thread_safe;
            let source = Arc::new(source);
            let overrides = [format!("num_workers={workers}"), "data_loader.params.prefetch_factor=3".into()];
            let data = data(&source, &overrides.each_ref().map(String::as_str)).unwrap();
            let mut loader = data.training_pass(0, 0, &StopHandle::default()).unwrap();
            assert_eq!(loader.most_batches(), most);
            let first = loader.next().unwrap().unwrap();
            // However long the host takes, nothing is loaded beyond that.
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(source.loads.load(Ordering::Relaxed) <= 4 * most, "{workers} workers");
            loader.recycle(first.batch.unwrap());
            while let Some(loaded) = loader.next() {
                loader.recycle(loaded.unwrap().batch.unwrap());
            }
            assert!((1..=most).contains(&loader.made_batches()), "{} of {most}", loader.made_batches());
        }
    }
}
