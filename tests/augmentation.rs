//! Contrastive samples of built features: what holds for every triplet, the same bits whoever makes them, and how fast.

mod common;

use std::hint::black_box;
use training_engine::augment::{AugmentRandom, Augmentor, CROPPED_SIZE, ContrastiveGenerator, Negative, Triplet, batch_order, negative};
use training_engine::config::{ModelConfig, ObjectiveConfig};
use training_engine::data::{batch::BatchOptions, batch::symbol, collate};
use training_engine::features::{FeatureBuilder, Features, validity};
use training_engine::graph::Scalar;
use training_engine::scenario::LightState;

/// Milliseconds that the published generator takes for a scenario on one core.
const PUBLISHED_MILLISECONDS: f64 = 11.0;
const HORIZON: f64 = 40.0;

/// Features of the scenarios below a folder, as far as they can be built.
fn built(folder: &std::path::Path, every: usize) -> Vec<Features> {
    let builder = FeatureBuilder::default();
    let files = common::files_below(&folder.join("scenarios"), ".json.gz");
    files.iter().step_by(every).filter_map(|file| builder.build(&common::read_scenario(file).ok()?).ok()).collect()
}

fn triplet(features: &Features, seed: u64, epoch: u64) -> Triplet {
    ContrastiveGenerator::default().augment(features, &mut AugmentRandom::new(seed, epoch, &features.token, 0)).unwrap()
}

/// Every number of a sample.
fn bits(f: &Features) -> Vec<u64> {
    let reals: [&[f64]; 24] = [
        &f.origin,
        &[f.angle],
        &f.current_state,
        &f.agents.position,
        &f.agents.heading,
        &f.agents.velocity,
        &f.agents.shape,
        &f.agents.target,
        &f.map.point_position,
        &f.map.point_vector,
        &f.map.point_orientation,
        &f.map.polygon_center,
        &f.map.polygon_position,
        &f.map.polygon_orientation,
        &f.map.polygon_speed_limit,
        &f.static_objects.position,
        &f.static_objects.heading,
        &f.static_objects.shape,
        &f.reference_lines.position,
        &f.reference_lines.vector,
        &f.reference_lines.orientation,
        &f.reference_lines.future_projection,
        &f.causal.free_path,
        &f.causal.interaction_label,
    ];
    let flags: [&[bool]; 6] =
        [&f.agents.valid, &f.map.valid, &f.static_objects.valid, &f.reference_lines.valid, &f.causal.leading_agent, &f.causal.red_light];
    let bytes: [&[i8]; 3] = [&f.agents.category, &f.map.polygon_light, &f.static_objects.category];
    let mut bits: Vec<u64> = reals.into_iter().flatten().map(|v| v.to_bits()).collect();
    bits.extend(flags.into_iter().flatten().map(|&v| u64::from(v)));
    bits.extend(bytes.into_iter().flatten().map(|&v| v as u64));
    bits.extend(f.cost_map.iter().flat_map(|map| &map.values).map(|v| u64::from(v.to_bits())));
    bits
}

fn triplet_bits(t: &Triplet) -> Vec<u64> {
    [bits(&t.anchor), bits(&t.positive), bits(&t.negative)].concat()
}

/// Arrays have the lengths that their counts say.
fn assert_fits(f: &Features) {
    validity::check(f).unwrap();
    let (agents, causal) = (&f.agents, &f.causal);
    let (count, steps) = (agents.count, agents.steps);
    assert!(count >= 1 && steps == 101);
    let doubled = [&agents.position, &agents.velocity, &agents.shape].map(Vec::len);
    assert_eq!(doubled, [count * steps * 2; 3]);
    assert_eq!([agents.heading.len(), agents.valid.len(), agents.category.len()], [count * steps, count * steps, count]);
    assert_eq!(agents.target.len(), count * 80 * 3);
    assert_eq!([causal.leading_agent.len(), causal.leading_distance.len(), causal.interaction_label.len()], [count; 3]);
    assert_eq!((agents.category[0], causal.leading_agent[0]), (0, false));
    for at in (0..count * steps).filter(|&at| !agents.valid[at]) {
        assert_eq!([agents.position[2 * at], agents.position[2 * at + 1], agents.heading[at], agents.velocity[2 * at]], [0.0; 4]);
    }
}

#[test]
fn every_triplet_is_sound() {
    let scenarios = built(&common::data(), 1);
    assert!(scenarios.len() >= 15);
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for anchor in &scenarios {
        let before = bits(anchor);
        for epoch in 0..12 {
            let made = triplet(anchor, 3, epoch);
            let Triplet { anchor: cut, positive, negative: changed, kind } = &made;
            [cut, positive, changed].into_iter().for_each(assert_fits);
            *kinds.entry(format!("{kind:?}")).or_default() += 1;

            let size = |f: &Features| f.cost_map.as_ref().map(|map| (map.size, map.values.len()));
            assert_eq!(
                [size(cut), size(positive), size(changed)],
                [Some((CROPPED_SIZE, CROPPED_SIZE.pow(2))); 2].into_iter().chain([None]).collect::<Vec<_>>()[..]
            );
            assert_eq!(bits(&cut.without_cost_map()), bits(&anchor.without_cost_map()));

            // the positive: moved a little, perhaps without bystanders, all else kept
            assert_eq!(positive.current_state[..3], [0.0; 3]);
            assert!(positive.current_state[3] >= 0.0);
            let (p, a) = (&positive.agents, &anchor.agents);
            assert!(p.position[40..42] == [0.0; 2] && p.heading[20] == 0.0);
            assert!(p.count <= a.count && positive.map.polygon_light == anchor.map.polygon_light);
            let passive = anchor.causal.interaction_label.iter().zip(&anchor.causal.leading_agent).skip(1);
            assert!(p.count > passive.filter(|&(&label, &leading)| label > 0.0 || leading).count());

            // the negative
            let available = negative::available(anchor, HORIZON);
            assert_eq!(kind.is_some(), !available.is_empty());
            match kind {
                None => assert_eq!(bits(changed), bits(&anchor.without_cost_map())),
                Some(kind) => {
                    assert!(available.contains(kind));
                    check_negative(*kind, anchor, changed);
                }
            }
        }
        assert_eq!(before, bits(anchor), "the anchor is read, not written");
    }
    println!("{kinds:?}");
    assert_eq!(kinds.len(), 4, "every kind of negative and none occur");
}

fn check_negative(kind: Negative, anchor: &Features, changed: &Features) {
    let lights_kept = anchor.map.polygon_light == changed.map.polygon_light;
    let count = |f: &Features| f.agents.count;
    match kind {
        Negative::LightInversion => {
            assert!(!lights_kept && count(changed) == count(anchor));
            for (row, (&old, &new)) in anchor.map.polygon_light.iter().zip(&changed.map.polygon_light).enumerate() {
                let free = new == LightState::Green as i8 || new == LightState::Unknown as i8;
                assert!(if anchor.causal.red_light[row] { free } else { old == new });
            }
        }
        Negative::AgentDropout => {
            assert!(lights_kept && count(changed) < count(anchor));
            assert!(!negative::restraining(changed, HORIZON).contains(&true));
        }
        Negative::LeadingAgentInsertion => {
            assert!(lights_kept);
            let agents = &changed.agents;
            let (row, steps) = (anchor.agents.count, agents.steps);
            assert_eq!(agents.count, row + 1);
            assert!(agents.category[row] > 0 && changed.causal.leading_agent[row]);
            let at = row * steps + 20;
            let pose = [agents.position[2 * at], agents.position[2 * at + 1], agents.heading[at]];
            assert!(anchor.causal.free_path.chunks(3).any(|point| point == pose), "{pose:?}");
            let speed = |at: usize| agents.velocity[2 * at].hypot(agents.velocity[2 * at + 1]);
            assert!(speed(at) <= 0.8 * speed(20) + 1e-9, "slower than the ego");
            assert!(changed.causal.leading_distance[row] > 0.0);
        }
    }
}

/// A scenario that has, or can be given, what the edge cases need.
fn scene(name: &str) -> Features {
    let file = common::files_below(&common::data().join("scenarios"), &format!("{name}.json.gz"));
    FeatureBuilder::default().build(&common::read_scenario(&file[0]).unwrap()).unwrap()
}

fn kinds(features: &Features) -> Vec<Option<Negative>> {
    let mut kinds: Vec<_> = (0..40).map(|epoch| triplet(features, 1, epoch).kind).collect();
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    kinds.dedup();
    kinds
}

#[test]
fn edge_cases() {
    // nobody there: nothing can be done
    assert_eq!(kinds(&scene("s4_empty")), [None]);
    // waiting for red, a free path and an agent
    let mut waiting = scene("s6_red_no_lead");
    assert_eq!(kinds(&waiting), [Some(Negative::LeadingAgentInsertion), Some(Negative::LightInversion)]);
    // without a free path only the lights are left
    waiting.causal.free_path.clear();
    assert_eq!(kinds(&waiting), [Some(Negative::LightInversion)]);

    // a standing ego: the inserted agent stands on the path
    let mut standing = scene("s8_copy_ego");
    assert_eq!(kinds(&standing), [Some(Negative::LeadingAgentInsertion)]);
    let steps = standing.agents.steps;
    standing.agents.velocity[..2 * steps].fill(0.0);
    standing.current_state[3] = 0.0;
    for epoch in 0..20 {
        let negative = triplet(&standing, 1, epoch).negative;
        assert_fits(&negative);
        let present = (negative.agents.count - 1) * steps + 20;
        assert_eq!(negative.agents.velocity[2 * present..2 * present + 2], [0.0; 2]);
    }
    // so do all others: the nearest speed is that of row 1, whose track is scaled by the draw alone
    standing.agents.velocity.fill(0.0);
    assert_eq!(negative::similar_agent(&standing), 1);
    assert_fits(&triplet(&standing, 1, 0).negative);

    // an agent in the ego: five tries fail, the last one stands
    let touching = scene("e09_ties");
    let moved = training_engine::augment::positive::perturb(&touching, &[1.0, 0.0, 0.0, -9.0, 0.0, 0.0, 0.0]);
    assert_eq!((moved.failed, moved.state[0], moved.state[3]), (5, 1.0 / 16.0, 0.0));
    assert_fits(&triplet(&touching, 1, 0).positive);

    // no cost map: none made
    let bare = scene("s1_lead_red").without_cost_map();
    let Triplet { anchor, positive, .. } = triplet(&bare, 1, 0);
    assert!(anchor.cost_map.is_none() && positive.cost_map.is_none());
    // no future: an error
    let mut blind = bare;
    blind.agents.target.clear();
    let error = ContrastiveGenerator::default().augment(&blind, &mut AugmentRandom::new(1, 0, "t", 0)).unwrap_err();
    assert!(error.to_string().contains("future"), "{error}");
}

#[test]
fn same_bits_whoever_makes_them() {
    let scenarios = built(&common::data(), 1);
    let jobs: Vec<(usize, u64)> = (0..scenarios.len()).flat_map(|i| [(i, 0), (i, 1)]).collect();
    let make = |&(i, epoch): &(usize, u64)| triplet_bits(&triplet(&scenarios[i], 42, epoch));
    let forward: Vec<_> = jobs.iter().map(make).collect();
    let mut backward: Vec<_> = jobs.iter().rev().map(make).collect();
    backward.reverse();
    // four threads take every fourth job each
    let mut parallel = vec![Vec::new(); jobs.len()];
    std::thread::scope(|scope| {
        let (jobs, make) = (&jobs, &make);
        let threads = (0..4).map(|first| scope.spawn(move || jobs.iter().skip(first).step_by(4).map(make).collect::<Vec<_>>()));
        let threads: Vec<_> = threads.collect();
        for (first, thread) in threads.into_iter().enumerate() {
            parallel.iter_mut().skip(first).step_by(4).zip(thread.join().unwrap()).for_each(|(place, bits)| *place = bits);
        }
    });
    assert!(forward == backward && forward == parallel);
    // another epoch, another seed
    assert!(forward.chunks(2).all(|pair| pair[0] != pair[1]));
    assert_ne!(triplet_bits(&triplet(&scenarios[0], 43, 0)), forward[0]);
}

#[test]
fn batches_are_anchors_then_positives_then_negatives() {
    let triplets: Vec<Triplet> = ["s4_empty", "s6_red_no_lead"].map(|name| triplet(&scene(name), 1, 0)).into();
    let (order, valid) = batch_order(&triplets);
    let [a, b] = &triplets[..] else { unreachable!() };
    let expected = [&a.anchor, &b.anchor, &a.positive, &b.positive, &a.negative, &b.negative];
    assert!(order.len() == 6 && order.into_iter().zip(expected).all(|(x, y)| std::ptr::eq(x, y)));
    assert_eq!(valid, [false, true]);
}

#[test]
fn batches_hold_triplets() {
    let triplets: Vec<Triplet> = ["s4_empty", "s6_red_no_lead", "s8_copy_ego"].map(|name| triplet(&scene(name), 1, 0)).into();
    let (order, valid) = batch_order(&triplets);
    let options = BatchOptions {
        model: ModelConfig::default(),
        objectives: ObjectiveConfig { use_contrast_loss: true, ..ObjectiveConfig::default() },
        scalar: Scalar::F32,
        triplets: true,
    };
    let batch = collate(&order, &valid, &options).unwrap();
    assert_eq!((batch.count(symbol::SCENARIOS), batch.count(symbol::IMITATED), batch.count(symbol::TRIPLETS)), (9, 6, 2));
    assert_eq!(batch.cost_map_size, CROPPED_SIZE);
    assert_eq!(batch.tokens, triplets.iter().map(|t| t.anchor.token.clone()).collect::<Vec<_>>());
    // an agent more in the last negative
    assert_eq!(batch.agents[8].len(), batch.agents[2].len() + 1);
}

#[test]
fn speed() {
    let mut scenarios = built(&common::data(), 1);
    if let Some(shared) = common::shared() {
        scenarios.extend(built(&shared.join("data"), 8));
    }
    let rounds = 4;
    let started = common::thread_time();
    for epoch in 0..rounds {
        for anchor in &scenarios {
            black_box(triplet(anchor, 1, epoch));
        }
    }
    let milliseconds = (common::thread_time() - started).as_secs_f64() * 1e3 / (rounds as f64 * scenarios.len() as f64);
    println!(
        "{} scenarios, {milliseconds:.2} ms a triplet on one core; the published generator: {PUBLISHED_MILLISECONDS} ms",
        scenarios.len()
    );
    assert!(milliseconds > 0.0);
}
