//! Contrastive samples against those of the published generator, array by array, from the published base features with the
//! recorded draws.
//!
//! The free cases in `tests/data` always run (of warped cost maps they hold every 25th row). With `TE_SHARED` the recorded ones
//! run too; `TE_FEATURES_DIR` names another folder instead.

mod common;

use common::golden::{Golden, features};
use std::collections::BTreeMap;
use std::path::PathBuf;
use training_engine::augment::{CROPPED_SIZE, Negative, cropped, drop_agents, negative, positive, warped};
use training_engine::features::{AgentFeatures, CostMap, Features};
use training_engine::scenario::LightState;

/// Metres, metres a second, radians.
const TOLERANCE: f64 = 1e-6;
/// Of the published configuration.
const HORIZON: f64 = 40.0;
/// What the engine has no use for: the published number of the negative's kind, which the contrastive loss does not read.
const NOT_COMPARED: [&str; 3] = ["aug/neg_drop/type", "aug/neg_insert/type", "aug/neg_tl/type"];

#[test]
fn golden_augmentations() {
    let mut cases: Vec<(PathBuf, Option<PathBuf>)> = Vec::new();
    match std::env::var_os("TE_FEATURES_DIR").map(PathBuf::from) {
        Some(folder) => cases.extend(common::files_below(&folder, ".safetensors").into_iter().map(|file| (file, None))),
        None => {
            let folder = common::data().join("augmentations");
            for file in common::files_below(&folder, ".safetensors.gz") {
                let name = file.strip_prefix(&folder).unwrap().with_extension("");
                cases.push((common::data().join("features").join(name), Some(file)));
            }
            assert_eq!(cases.len(), 5);
            match common::shared() {
                Some(shared) => {
                    let files = common::files_below(&shared.join("data/features"), ".safetensors");
                    cases.extend(files.into_iter().map(|file| (file, None)));
                }
                None => println!("TE_SHARED is not set: only the cases in tests/data are compared"),
            }
        }
    }
    let mut report = Report::default();
    for (features, augmentations) in cases {
        let golden = Golden::read(&features, augmentations.as_deref());
        if golden.has("aug/pos/noise") {
            compare(&mut report, golden);
        }
    }
    report.print();
    assert!(report.scenarios > 0);
    assert!(report.failures.is_empty(), "{} arrays differ:\n{}", report.failures.len(), report.failures.join("\n"));
}

#[derive(Default)]
struct Report {
    scenarios: usize,
    arrays: usize,
    left_out: usize,
    /// Greatest difference and number of arrays by kind.
    worst: BTreeMap<String, (f64, usize)>,
    failures: Vec<String>,
}

impl Report {
    fn print(&self) {
        println!("{:>9} scenarios compared", self.scenarios);
        println!("{:>9} arrays compared", self.arrays);
        println!("{:>9} arrays without a counterpart: the number of the negative's kind", self.left_out);
        for (name, (worst, arrays)) in &self.worst {
            println!("{worst:>9.1e} worst difference of {name} ({arrays} arrays)");
        }
    }
}

/// One scenario's comparison.
struct Case<'a> {
    report: &'a mut Report,
    golden: Golden,
    /// Recorded arrays that were read as draws, or compared.
    seen: Vec<String>,
}

impl Case<'_> {
    /// A recorded draw or choice.
    fn draw(&mut self, key: &str) -> Vec<f64> {
        self.seen.push(key.to_owned());
        self.golden.numbers(key)
    }

    fn compare(&mut self, key: &str, ours: &[f64], tolerance: f64) {
        let golden = self.golden.numbers(key);
        self.same(key, ours, &golden, tolerance);
    }

    fn same(&mut self, key: &str, ours: &[f64], golden: &[f64], tolerance: f64) {
        self.seen.push(key.to_owned());
        self.report.arrays += 1;
        let entry = self.report.worst.entry(key.replace("new_agent/", "").replace("agent/", "")).or_default();
        entry.1 += 1;
        if ours.len() != golden.len() {
            self.report.failures.push(format!("{}: {key} has {} numbers, not {}", self.golden.name, ours.len(), golden.len()));
            return;
        }
        for (i, (a, b)) in ours.iter().zip(golden).enumerate() {
            let difference = (a - b).abs();
            if difference.is_nan() || difference > tolerance {
                self.report.failures.push(format!("{}: {key}[{i}] is {a}, not {b}", self.golden.name));
                return;
            }
            entry.0 = entry.0.max(difference);
        }
    }

    /// As `compare`, but golden steps that are not `valid` (`width` numbers a flag) count as 0, which they are with us.
    fn compare_valid(&mut self, key: &str, ours: &[f64], valid: &[f64], width: usize) {
        let mut golden = self.golden.numbers(key);
        for (chunk, _) in golden.chunks_mut(width).zip(valid).filter(|(_, valid)| **valid == 0.0) {
            chunk.fill(0.0);
        }
        self.same(key, ours, &golden, TOLERANCE);
    }

    /// Agents; `row` is the first of ours.
    fn compare_agents(&mut self, prefix: &str, agents: &AgentFeatures, row: usize) {
        let key = |name: &str| format!("{prefix}/{name}");
        let (steps, from) = (agents.steps, row * agents.steps);
        self.compare(&key("valid_mask"), &flags(&agents.valid[from..]), 0.0);
        self.compare(&key("category"), &bytes(&agents.category[row..]), 0.0);
        let valid = self.golden.numbers(&key("valid_mask"));
        self.compare_valid(&key("position"), &agents.position[2 * from..], &valid, 2);
        self.compare_valid(&key("heading"), &agents.heading[from..], &valid, 1);
        self.compare_valid(&key("velocity"), &agents.velocity[2 * from..], &valid, 2);
        self.compare_valid(&key("shape"), &agents.shape[2 * from..], &valid, 2);
        let future: Vec<f64> = valid.chunks(steps).flat_map(|row| row[21..].iter().copied()).collect();
        self.compare_valid(&key("target"), &agents.target[3 * row * (steps - 21)..], &future, 3);
    }
}

fn flags(values: &[bool]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(u8::from(v))).collect()
}

fn bytes(values: &[i8]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn compare(report: &mut Report, golden: Golden) {
    report.scenarios += 1;
    let anchor = features(&golden);
    let mut case = Case { report, golden, seen: Vec::new() };
    compare_perturbation(&mut case, &anchor);
    compare_bystanders(&mut case, &anchor);
    compare_negatives(&mut case, &anchor);
    let forgotten: Vec<String> = case.golden.names().into_iter().filter(|n| n.starts_with("aug/") && !case.seen.contains(n)).collect();
    case.report.left_out += forgotten.len();
    assert!(forgotten.iter().all(|name| NOT_COMPARED.contains(&&**name)), "{}: not compared: {forgotten:?}", case.golden.name);
}

fn perturbed(case: &mut Case, anchor: &Features, name: &str) -> positive::Perturbation {
    let noise: [f64; 7] = case.draw(&format!("aug/{name}/noise")).try_into().unwrap();
    let moved = positive::perturb(anchor, &noise);
    let mut safe = vec![0.0; moved.failed];
    if moved.failed < positive::TRIES {
        safe.push(1.0);
    }
    case.compare(&format!("aug/{name}/noise_used"), &moved.noise, 0.0);
    case.compare(&format!("aug/{name}/num_tries"), &[moved.failed as f64], 0.0);
    case.compare(&format!("aug/{name}/safe"), &safe, 0.0);
    moved
}

fn compare_perturbation(case: &mut Case, anchor: &Features) {
    let moved = perturbed(case, anchor, "pos");
    let mut sample = anchor.clone();
    positive::move_ego(&mut sample, &moved.state);
    let key = |name: &str| format!("aug/pos/out/{name}");
    case.compare(&key("current_state"), &sample.current_state, TOLERANCE);
    case.compare(&key("origin"), &sample.origin, 0.0);
    case.compare(&key("angle"), &[sample.angle], 0.0);
    case.compare_agents("aug/pos/out/agent", &sample.agents, 0);

    let map = &sample.map;
    let road_blocks: Vec<f64> = map.polygon_road_block.iter().map(|&r| f64::from(r)).collect();
    let sides: Vec<f64> = (0..map.count).flat_map(|_| [0.0, 1.0, 2.0]).collect();
    for (name, ours) in [
        ("point_position", &map.point_position),
        ("point_vector", &map.point_vector),
        ("point_orientation", &map.point_orientation),
        ("polygon_center", &map.polygon_center),
        ("polygon_position", &map.polygon_position),
        ("polygon_orientation", &map.polygon_orientation),
        ("polygon_speed_limit", &map.polygon_speed_limit),
        ("point_side", &sides),
        ("polygon_type", &bytes(&map.polygon_type)),
        ("polygon_on_route", &flags(&map.polygon_on_route)),
        ("polygon_tl_status", &bytes(&map.polygon_light)),
        ("polygon_has_speed_limit", &flags(&map.polygon_has_speed_limit)),
        ("polygon_road_block_id", &road_blocks),
        ("valid_mask", &flags(&map.valid)),
    ] {
        case.compare(&key(&format!("map/{name}")), ours, TOLERANCE);
    }
    let objects = &sample.static_objects;
    case.compare(&key("static_objects/position"), &objects.position, TOLERANCE);
    case.compare(&key("static_objects/heading"), &objects.heading, TOLERANCE);
    case.compare(&key("static_objects/shape"), &objects.shape, 0.0);
    case.compare(&key("static_objects/category"), &bytes(&objects.category), 0.0);
    case.compare(&key("static_objects/valid_mask"), &flags(&objects.valid), 0.0);
    let lines = &sample.reference_lines;
    let valid = flags(&lines.valid);
    case.compare(&key("reference_line/valid_mask"), &valid, 0.0);
    case.compare_valid(&key("reference_line/position"), &lines.position, &valid, 2);
    case.compare_valid(&key("reference_line/vector"), &lines.vector, &valid, 2);
    case.compare_valid(&key("reference_line/orientation"), &lines.orientation, &valid, 1);
    case.compare(&key("reference_line/future_projection"), &lines.future_projection, 0.0);
    let causal = &sample.causal;
    case.compare(&key("causal/is_waiting_for_red_light_without_lead"), &flags(&[causal.waiting_for_red_light]), 0.0);
    case.compare(&key("causal/leading_agent_mask"), &flags(&causal.leading_agent), 0.0);
    case.compare(&key("causal/leading_distance"), &causal.leading_distance, 0.0);
    case.compare(&key("causal/ego_care_red_light_mask"), &flags(&causal.red_light), 0.0);
    case.compare(&key("causal/fixed_ego_future_valid_mask"), &flags(&causal.ego_future_valid), 0.0);
    case.compare(&key("causal/free_path_points"), &causal.free_path, TOLERANCE);
    case.compare(&key("causal/interaction_label"), &causal.interaction_label, 0.0);

    if case.golden.has("aug/pos/out/cost_maps") {
        let whole = anchor.cost_map.as_ref().unwrap();
        let [x, y, heading, ..] = moved.noise;
        compare_cost_map(case, "aug/pos/out/cost_maps", &warped(whole, [x, y], heading).unwrap());
        compare_cost_map(case, "aug/cost_maps_crop", &cropped(whole).unwrap());
    }
}

/// Bit for bit; the golden map has all rows, or one of so many.
fn compare_cost_map(case: &mut Case, key: &str, ours: &CostMap) {
    assert_eq!((ours.size, ours.values.len()), (CROPPED_SIZE, CROPPED_SIZE * CROPPED_SIZE));
    let rows = case.golden.numbers(key).len() / ours.size;
    let rows = ours.values.chunks(ours.size).step_by(ours.size / rows);
    let ours: Vec<f64> = rows.flatten().map(|&v| f64::from(v)).collect();
    case.compare(key, &ours, 0.0);
}

fn compare_bystanders(case: &mut Case, anchor: &Features) {
    let moved = perturbed(case, anchor, "pos_drop");
    let portion = case.draw("aug/pos_drop/portion")[0];
    let draws = case.draw("aug/pos_drop/agent_noise");
    let dropped = positive::bystanders(anchor, portion, &draws);
    case.compare("aug/pos_drop/drop_mask", &flags(&dropped), 0.0);
    let mut sample = anchor.clone();
    drop_agents(&mut sample, &dropped);
    positive::move_ego(&mut sample, &moved.state);
    case.compare_agents("aug/pos_drop/out/agent", &sample.agents, 0);
}

fn compare_negatives(case: &mut Case, anchor: &Features) {
    let available = negative::available(anchor, HORIZON);
    let kinds = [Negative::AgentDropout, Negative::LightInversion, Negative::LeadingAgentInsertion];
    case.compare("aug/neg/available", &flags(&kinds.map(|kind| available.contains(&kind))), 0.0);
    case.compare("aug/neg/interacting_agent_mask", &flags(&negative::interacting(anchor, HORIZON)), 0.0);

    let dropped = negative::restraining(anchor, HORIZON);
    case.compare("aug/neg_drop/dropout_mask", &flags(&dropped), 0.0);
    let mut sample = anchor.clone();
    drop_agents(&mut sample, &dropped);
    case.compare_agents("aug/neg_drop/agent", &sample.agents, 0);

    let mut chosen = case.draw("aug/neg_tl/chosen").into_iter();
    let mut sample = anchor.clone();
    negative::invert_lights(&mut sample, || chosen.next().unwrap() == f64::from(LightState::Green as i8));
    assert_eq!(chosen.next(), None);
    case.compare("aug/neg_tl/polygon_tl_status", &bytes(&sample.map.polygon_light), 0.0);

    if case.golden.has("aug/neg_insert/path_point_index") {
        case.compare("aug/neg_insert/copied_agent", &[negative::similar_agent(anchor) as f64], 0.0);
        let point = case.draw("aug/neg_insert/path_point_index")[0] as usize;
        let scale = case.draw("aug/neg_insert/scale_draw")[0];
        let mut shape = case.draw("aug/neg_insert/shape_draw").into_iter();
        let mut sample = anchor.clone();
        negative::insert_leading_agent(&mut sample, point, scale, || shape.next().unwrap());
        assert_eq!(shape.next(), None);
        assert_eq!(sample.agents.count, anchor.agents.count + 1);
        case.compare_agents("aug/neg_insert/new_agent", &sample.agents, anchor.agents.count);
    }
}
