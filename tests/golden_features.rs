//! Features against those of the published builder, array by array.
//!
//! The free cases in `tests/data` always run. With `TE_SHARED` the recorded ones run too; `TE_FEATURES_DIR` and
//! `TE_SCENARIOS_DIR` name other folders instead. Where the published builder is at fault or leaves a choice open, the engine
//! follows its own rule and the comparison counts an exception by name.

mod common;

use common::golden::numbers;
use common::thread_time;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::path::{Path, PathBuf};
use std::time::Duration;
use training_engine::features::{CostMap, FeatureBuilder, Features, MapFeatures, cost_map};

/// Metres, metres a second, radians modulo a turn.
const TOLERANCE: f64 = 1e-6;
/// Part of the drivable mask that may differ (a pixel in ten thousand), for the last bit of sines and cosines.
const MASK_TOLERANCE: f64 = 1e-4;
/// Milliseconds that the published builder takes for a scenario on one core.
const PUBLISHED_MILLISECONDS: f64 = 294.0;

#[test]
fn golden_features() {
    let folders = match (std::env::var_os("TE_FEATURES_DIR"), std::env::var_os("TE_SCENARIOS_DIR")) {
        (Some(features), Some(scenarios)) => vec![(PathBuf::from(features), PathBuf::from(scenarios))],
        _ => {
            let mut folders = vec![common::data()];
            match common::shared() {
                Some(shared) => folders.push(shared.join("data")),
                None => println!("TE_SHARED is not set: only the cases in tests/data are compared"),
            }
            folders.into_iter().map(|folder| (folder.join("features"), folder.join("scenarios"))).collect()
        }
    };
    let mut report = Report::default();
    for (features, scenarios) in folders {
        let files = common::files_below(&features, ".safetensors");
        assert!(!files.is_empty(), "no *.safetensors below {}", features.display());
        for file in files {
            let name = file.strip_prefix(&features).unwrap().with_extension("json.gz");
            compare_scenario(&mut report, &file, &scenarios.join(&name));
        }
    }
    report.print();
    assert!(report.failures.is_empty(), "{} arrays differ:\n{}", report.failures.len(), report.failures.join("\n"));
}

#[derive(Default)]
struct Report {
    scenarios: usize,
    arrays: usize,
    worst: BTreeMap<&'static str, f64>,
    exceptions: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
    time: Duration,
}

impl Report {
    fn except(&mut self, rule: &'static str) {
        *self.exceptions.entry(rule).or_default() += 1;
    }

    fn print(&self) {
        println!("{:>9} scenarios compared", self.scenarios);
        println!("{:>9} arrays compared", self.arrays);
        for (name, worst) in &self.worst {
            println!("{worst:>9.1e} worst difference of {name}");
        }
        for (rule, count) in &self.exceptions {
            println!("{count:>9} exceptions: {rule}");
        }
        let milliseconds = self.time.as_secs_f64() * 1e3 / self.scenarios.max(1) as f64;
        println!("{milliseconds:>9.2} ms a scenario on one core, map at hand; the published builder: {PUBLISHED_MILLISECONDS} ms");
        println!("{:>9.0} times as fast", PUBLISHED_MILLISECONDS / milliseconds);
    }
}

/// One scenario's comparison.
struct Case<'a> {
    report: &'a mut Report,
    golden: SafeTensors<'a>,
    name: String,
}

impl Case<'_> {
    fn has(&self, key: &str) -> bool {
        self.golden.tensor(key).is_ok()
    }

    /// Any golden array as doubles.
    fn golden(&self, key: &str) -> Vec<f64> {
        numbers(&self.golden, key).unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    /// All numbers equal within the tolerance; `exact` for masks, categories and counts; `turn` for angles.
    fn same(&mut self, key: &'static str, ours: &[f64], golden: &[f64], kind: Kind) {
        self.report.arrays += 1;
        if ours.len() != golden.len() {
            self.report.failures.push(format!("{}: {key} has {} numbers, not {}", self.name, ours.len(), golden.len()));
            return;
        }
        let difference = |a: f64, b: f64| match kind {
            Kind::Angle => ((a - b + TAU / 2.0).rem_euclid(TAU) - TAU / 2.0).abs(),
            _ => (a - b).abs(),
        };
        let tolerance = if kind == Kind::Exact { 0.0 } else { TOLERANCE };
        let mut worst = 0.0_f64;
        for (i, (&a, &b)) in ours.iter().zip(golden).enumerate() {
            let d = difference(a, b);
            let within = d <= tolerance; // NaN is not
            if !within {
                self.report.failures.push(format!("{}: {key}[{i}] is {a}, not {b}", self.name));
                return;
            }
            worst = worst.max(d);
        }
        let entry = self.report.worst.entry(key).or_default();
        *entry = entry.max(worst);
    }

    fn compare(&mut self, key: &'static str, ours: &[f64], kind: Kind) {
        let golden = self.golden(key);
        self.same(key, ours, &golden, kind);
    }

    /// As `compare`, but only where `valid` (`width` numbers a flag); elsewhere ours is zero, where the published builder
    /// leaves the moved origin.
    fn compare_valid(&mut self, key: &'static str, ours: &[f64], golden: &[f64], valid: &[f64], width: usize, kind: Kind) {
        let mut golden = golden.to_vec();
        for (chunk, &valid) in golden.chunks_mut(width).zip(valid) {
            if valid == 0.0 {
                chunk.fill(0.0);
            }
        }
        self.same(key, ours, &golden, kind);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Exact,
    Number,
    Angle,
}
use Kind::{Angle, Exact, Number};

fn bools(values: &[bool]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(u8::from(v))).collect()
}

fn bytes(values: &[i8]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn compare_scenario(report: &mut Report, golden: &Path, scenario: &Path) {
    let name = format!("{}", golden.display());
    let scenario = common::read_scenario(scenario).unwrap_or_else(|e| panic!("{name}: {e}"));
    let data = std::fs::read(golden).unwrap();
    let golden = SafeTensors::deserialize(&data).unwrap();
    let builder = FeatureBuilder::default();
    let started = thread_time();
    let built = builder.build(&scenario);
    report.time += thread_time() - started;
    report.scenarios += 1;
    let mut case = Case { report, golden, name };

    let lines_valid = case.golden("reference_line/valid_mask").contains(&1.0);
    let features = match built {
        Ok(features) => {
            assert!(lines_valid, "{}: built without a reference line", case.name);
            features
        }
        Err(error) => {
            assert!(!lines_valid, "{}: {error}", case.name);
            assert!(error.to_string().contains("no reference line"), "{error}");
            case.report.except("rejected, having no reference line (the other arrays are compared)");
            builder.assemble(&scenario).unwrap()
        }
    };
    case.compare("origin", &features.origin, Number);
    case.compare("angle", &[features.angle], Angle);
    case.compare("current_state", &features.current_state, Number);
    compare_agents(&mut case, &features);
    compare_map(&mut case, &features);
    compare_static_objects(&mut case, &features);
    compare_reference_lines(&mut case, &features);
    compare_cost_map(&mut case, &features);
}

fn compare_agents(case: &mut Case, features: &Features) {
    let (agents, causal) = (&features.agents, &features.causal);
    let order = agent_order(case, features);
    if order.iter().enumerate().any(|(i, &j)| i != j) {
        case.report.except("equally near agents in another order");
    }
    let rows = |golden: Vec<f64>| -> Vec<f64> {
        let width = golden.len() / order.len();
        order.iter().flat_map(|&row| golden[row * width..(row + 1) * width].iter().copied()).collect()
    };
    let valid = rows(case.golden("agent/valid_mask"));
    case.same("agent/valid_mask", &bools(&agents.valid), &valid, Exact);
    let arrays: [(&str, &[f64], usize, Kind); 4] = [
        ("agent/position", &agents.position, 2, Number),
        ("agent/heading", &agents.heading, 1, Angle),
        ("agent/velocity", &agents.velocity, 2, Number),
        ("agent/shape", &agents.shape, 2, Number),
    ];
    for (key, ours, width, kind) in arrays {
        let golden = rows(case.golden(key));
        case.compare_valid(key, ours, &golden, &valid, width, kind);
    }
    let arrays: [(&str, Vec<f64>, Kind); 4] = [
        ("agent/category", bytes(&agents.category), Exact),
        ("agent/target", agents.target.clone(), Number),
        ("causal/leading_agent_mask", bools(&causal.leading_agent), Exact),
        ("causal/leading_distance", causal.leading_distance.clone(), Number),
    ];
    for (key, ours, kind) in arrays {
        let golden = rows(case.golden(key));
        case.same(key, &ours, &golden, kind);
    }
    // the published label takes distances of global coordinates by a matrix product, which is too coarse for large ones
    let key = if case.has("inter/interaction/label_exact") { "inter/interaction/label_exact" } else { "causal/interaction_label" };
    let golden = rows(case.golden(key));
    case.same("causal/interaction_label", &causal.interaction_label, &golden, Exact);
    if key.starts_with("inter") && golden != rows(case.golden("causal/interaction_label")) {
        case.report.except("interaction labels from exact distances");
    }
    case.compare("causal/fixed_ego_future_valid_mask", &bools(&causal.ego_future_valid), Exact);
    case.compare("causal/is_waiting_for_red_light_without_lead", &bools(&[causal.waiting_for_red_light]), Exact);
    case.compare("causal/free_path_points", &causal.free_path, Number);
}

/// For each of our rows the golden row: the same, but among equally near agents the one that fits.
fn agent_order(case: &Case, features: &Features) -> Vec<usize> {
    let golden = case.golden("agent/position");
    let agents = &features.agents;
    let stride = agents.steps * 2;
    let count = golden.len() / stride;
    let center = training_engine::scenario::Vehicle::PACIFICA.rear_axle_to_center();
    let reach = |row: usize| (golden[row * stride + 40] - center).hypot(golden[row * stride + 41]);
    let fits = |ours: usize, row: usize| {
        (0..agents.steps).all(|step| {
            let (a, b) = (ours * stride + 2 * step, row * stride + 2 * step);
            !agents.valid[ours * agents.steps + step]
                || (agents.position[a] - golden[b]).abs().max((agents.position[a + 1] - golden[b + 1]).abs()) < TOLERANCE
        })
    };
    let mut order: Vec<usize> = (0..count).collect();
    for row in 1..count.min(agents.count) {
        let tied = |other: &usize| *other > 0 && (reach(*other) - reach(row)).abs() < 1e-9;
        if !fits(row, order[row])
            && let Some(swap) = (row + 1..count).filter(tied).find(|&other| fits(row, order[other]))
        {
            order.swap(row, swap);
        }
    }
    order
}

fn compare_map(case: &mut Case, features: &Features) {
    let mut map = features.map.clone();
    if turn_crosswalks(&mut map, &case.golden("map/point_position")) {
        case.report.except("crosswalks described from another side of the same rectangle");
    }
    let road_blocks: Vec<f64> = map.polygon_road_block.iter().map(|&r| f64::from(r)).collect();
    let sides: Vec<f64> = (0..map.count).flat_map(|_| [0.0, 1.0, 2.0]).collect();
    let arrays: [(&str, Vec<f64>, Kind); 14] = [
        ("map/polygon_type", bytes(&map.polygon_type), Exact),
        ("map/valid_mask", bools(&map.valid), Exact),
        ("map/point_position", map.point_position.clone(), Number),
        ("map/point_vector", map.point_vector.clone(), Number),
        ("map/point_orientation", map.point_orientation.clone(), Angle),
        ("map/point_side", sides, Exact),
        ("map/polygon_position", map.polygon_position.clone(), Number),
        ("map/polygon_orientation", map.polygon_orientation.clone(), Angle),
        ("map/polygon_on_route", bools(&map.polygon_on_route), Exact),
        ("map/polygon_tl_status", bytes(&map.polygon_light), Exact),
        ("map/polygon_has_speed_limit", bools(&map.polygon_has_speed_limit), Exact),
        ("map/polygon_speed_limit", map.polygon_speed_limit.clone(), Number),
        ("map/polygon_road_block_id", road_blocks, Exact),
        ("causal/ego_care_red_light_mask", bools(&features.causal.red_light), Exact),
    ];
    for (key, ours, kind) in arrays {
        case.compare(key, &ours, kind);
    }
    // x, y and an angle
    let columns = |values: &[f64], range: std::ops::Range<usize>| -> Vec<f64> {
        values.chunks(3).flat_map(|row| row[range.clone()].iter().copied()).collect()
    };
    let golden = case.golden("map/polygon_center");
    case.same("map/polygon_center", &columns(&map.polygon_center, 0..2), &columns(&golden, 0..2), Number);
    case.same("map/polygon_center", &columns(&map.polygon_center, 2..3), &columns(&golden, 2..3), Angle);
}

/// A crosswalk's rectangle has the same area from each of its sides, and the last bit decides which side comes first: turns our
/// rows to the side that the golden ones start with. True if any was turned.
fn turn_crosswalks(map: &mut MapFeatures, golden: &[f64]) -> bool {
    const CROSSWALK: i8 = 2;
    const ROW: usize = 3 * 20 * 2;
    let mut turned = false;
    let rows = (0..map.count).filter(|&row| map.polygon_type[row] == CROSSWALK && golden.len() == map.count * ROW).collect::<Vec<_>>();
    for row in rows {
        // [centre, left, right]; the rectangle's corners in order are the right line's end, the left's end and the starts
        let point = |values: &[f64], side: usize, i: usize| {
            let at = row * ROW + (side * 20 + i) * 2;
            [values[at], values[at + 1]]
        };
        let end = |side: usize| {
            let (a, v) = (point(&map.point_position, side, 19), point(&map.point_vector, side, 19));
            [a[0] + v[0], a[1] + v[1]]
        };
        let corners = [end(2), end(1), point(&map.point_position, 1, 0), point(&map.point_position, 2, 0)];
        let far = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).abs().max((a[1] - b[1]).abs()) > TOLERANCE;
        let fits = |turn: usize| {
            let corner = |i: usize| corners[(i + turn) % 4];
            !far(corner(3), point(golden, 2, 0)) && !far(corner(2), point(golden, 1, 0))
        };
        let Some(turn) = (0..4).find(|&turn| fits(turn)).filter(|&turn| turn > 0) else { continue };
        turned = true;
        let corner = |i: usize| corners[(i + turn) % 4];
        let (right, left) = ([corner(3), corner(0)], [corner(2), corner(1)]);
        let center = [0, 1].map(|i| [(right[i][0] + left[i][0]) / 2.0, (right[i][1] + left[i][1]) / 2.0]);
        for (side, [a, b]) in [center, left, right].into_iter().enumerate() {
            let vector = [(b[0] - a[0]) / 20.0, (b[1] - a[1]) / 20.0];
            let orientation = vector[1].atan2(vector[0]);
            for i in 0..20 {
                let at = row * 60 + side * 20 + i;
                let position = [a[0] + vector[0] * i as f64, a[1] + vector[1] * i as f64];
                map.point_position[2 * at..2 * at + 2].copy_from_slice(&position);
                map.point_vector[2 * at..2 * at + 2].copy_from_slice(&vector);
                map.point_orientation[at] = orientation;
                if side == 0 {
                    map.valid[row * 20 + i] = position.iter().all(|c| c.abs() < 120.0);
                }
            }
        }
        let line = row * ROW;
        map.polygon_position[2 * row..2 * row + 2].copy_from_slice(&map.point_position[line..line + 2]);
        map.polygon_orientation[row] = map.point_orientation[row * 60];
        map.polygon_center[3 * row..3 * row + 2].copy_from_slice(&map.point_position[line + 20..line + 22]);
        map.polygon_center[3 * row + 2] = map.point_orientation[row * 60];
    }
    turned
}

/// The turned rows are held against themselves: a crosswalk that is turned by two sides and back is the same.
#[test]
fn turning_a_crosswalk_there_and_back_changes_nothing() {
    let file = common::data().join("scenarios/synthetic_edge/e16_rectangular_crosswalk.json.gz");
    let features = FeatureBuilder::default().build(&common::read_scenario(&file).unwrap()).unwrap();
    let original = features.map;
    let row = original.polygon_type.iter().position(|&t| t == 2).unwrap();
    let mut opposite = original.point_position.clone();
    let lines = &mut opposite[row * 120..(row + 1) * 120];
    // from the opposite side left and right change places and run the other way
    let ends = |side: usize| {
        [0, 1].map(|k| original.point_position[row * 120 + side * 40 + 38 + k] + original.point_vector[row * 120 + side * 40 + 38 + k])
    };
    lines[40..42].copy_from_slice(&ends(2));
    lines[80..82].copy_from_slice(&ends(1));
    let mut turned = original.clone();
    assert!(turn_crosswalks(&mut turned, &opposite));
    assert!(turned.point_position != original.point_position);
    assert!(turn_crosswalks(&mut turned, &original.point_position));
    let arrays = [
        (&turned.point_position, &original.point_position),
        (&turned.point_vector, &original.point_vector),
        (&turned.polygon_center, &original.polygon_center),
        (&turned.polygon_position, &original.polygon_position),
    ];
    for (a, b) in arrays {
        assert!(a.iter().zip(b.iter()).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}

fn compare_static_objects(case: &mut Case, features: &Features) {
    let objects = &features.static_objects;
    case.compare("static_objects/position", &objects.position, Number);
    case.compare("static_objects/heading", &objects.heading, Angle);
    case.compare("static_objects/shape", &objects.shape, Number);
    case.compare("static_objects/category", &bytes(&objects.category), Exact);
    case.compare("static_objects/valid_mask", &bools(&objects.valid), Exact);
}

fn compare_reference_lines(case: &mut Case, features: &Features) {
    let lines = &features.reference_lines;
    case.compare("reference_line/valid_mask", &bools(&lines.valid), Exact);
    let valid = case.golden("reference_line/valid_mask");
    let arrays: [(&str, &[f64], usize, Kind); 3] = [
        ("reference_line/position", &lines.position, 2, Number),
        ("reference_line/vector", &lines.vector, 2, Number),
        ("reference_line/orientation", &lines.orientation, 1, Angle),
    ];
    for (key, ours, width, kind) in arrays {
        let golden = case.golden(key);
        case.compare_valid(key, ours, &golden, &valid, width, kind);
    }
    case.compare("reference_line/future_projection", &lines.future_projection, Number);
}

fn compare_cost_map(case: &mut Case, features: &Features) {
    let ours = features.cost_map.as_ref().unwrap();
    let packed = case.golden.tensor("inter/cost/mask_bits").unwrap().data();
    let mask: Vec<u8> = packed.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    assert_eq!((mask.len(), ours.size), (ours.values.len(), cost_map::SIZE));
    case.report.arrays += 1;
    let differing = mask.iter().zip(&ours.values).filter(|&(&m, &v)| (m == 1) != (v > 0.0)).count();
    let part = differing as f64 / mask.len() as f64;
    if part > MASK_TOLERANCE {
        case.report.failures.push(format!("{}: {differing} pixels of the drivable mask differ", case.name));
    }
    let worst = case.report.worst.entry("drivable mask (part of its pixels)").or_default();
    *worst = worst.max(part);
    if !case.has("cost_maps") {
        return;
    }
    if !(mask.contains(&0) && mask.contains(&1)) {
        // the published distance is to a pixel outside the image; ours is the constant 60 m
        case.report.except("cost map of one kind of pixel alone");
        assert!(ours.values.iter().all(|v| v.abs() == 60.0));
        return;
    }
    let transformed: Vec<f64> = CostMap::from_mask(&mask, cost_map::SIZE).unwrap().values.iter().map(|&v| v.into()).collect();
    case.compare("cost_maps", &transformed, Exact);
}

/// Every recorded scenario builds, or is rejected with a reason; nothing panics, and prediction needs no future.
#[test]
fn recorded_scenarios_build() {
    let Some(shared) = common::shared() else {
        println!("TE_SHARED is not set: skipped");
        return;
    };
    let builder = FeatureBuilder::default();
    let (mut built, mut rejected, mut time, mut map_time) = (0, Vec::new(), Duration::ZERO, Duration::ZERO);
    for file in common::files_below(&shared.join("data/scenarios"), ".json.gz") {
        let started = thread_time();
        let scenario = common::read_scenario(&file);
        map_time += thread_time() - started;
        let result = scenario.and_then(|mut scenario| {
            let started = thread_time();
            let features = builder.build(&scenario);
            time += thread_time() - started;
            scenario.ego.truncate(21);
            scenario.agents.iter_mut().for_each(|agent| agent.states.truncate(21));
            let present = builder.build(&scenario);
            let features = features?;
            let present = present?;
            assert!(present.cost_map.is_none() && present.agents.target.is_empty());
            assert_eq!(present.map.point_position, features.map.point_position);
            assert_eq!(present.reference_lines.position, features.reference_lines.position);
            Ok(features)
        });
        match result {
            Ok(_) => built += 1,
            Err(error) => rejected.push(error.to_string()),
        }
    }
    println!(
        "{built} built in {:.2} ms each (reading and map: {:.2} ms), {} rejected:",
        time.as_secs_f64() * 1e3 / f64::from(built),
        map_time.as_secs_f64() * 1e3 / f64::from(built),
        rejected.len()
    );
    rejected.iter().for_each(|error| println!("  {error}"));
    assert!(built > 300, "only {built} of the recorded scenarios build");
    assert!(rejected.len() < 10, "{} of the recorded scenarios are rejected", rejected.len());
}
