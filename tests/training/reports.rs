//! What evaluations say of single scenarios, and profiles.

use super::*;
use serde_json::Value;
use std::{collections::BTreeMap, fs};
use training_engine::scenario::Split;

fn labelled(scenarios: usize) -> Roads {
    let mut source = Roads::new(scenarios);
    source.labelled = true;
    source.split = Some(Split::Test);
    source
}

/// Lines of a CSV file, each by the names in the head.
fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

fn number(line: &BTreeMap<String, String>, name: &str) -> f64 {
    line[name].parse().unwrap_or_else(|_| panic!("{name}: {line:?}"))
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + b.abs())
}

/// Of what every scenario counts in once: the weighted mean of parts is the whole.
const PLANNING: [&str; 3] = ["test/minADE", "test/minFDE", "test/MR"];

#[test]
fn scenarios_and_types_have_values_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = labelled(13);
    source.failing.insert(4);
    let overrides = ["evaluation.by_type=true", "evaluation.per_scenario_csv=true", "precision=64", "batch_size=5", "num_workers=2"];
    let mut detailed = engine(config(folder.path(), &overrides), source, Host::default());
    let report = detailed.test().unwrap();
    assert_eq!(report.scenarios, 12);
    let mut lines = table(&folder.path().join("evaluation/test_scenarios.csv"));
    assert_eq!(lines.len(), 12);
    lines.sort_by_key(|line| line["token"]["scenario ".len()..].parse::<usize>().unwrap());
    for (line, i) in lines.iter().zip((0..13).filter(|i| *i != 4)) {
        assert_eq!((line["token"].clone(), line["log_name"].clone()), (format!("scenario {i}"), format!("log {}", i % 10)));
        assert_eq!(line["scenario_type"], if i % 3 == 0 { "waiting" } else { "following" });
    }
    let mean =
        |lines: &[&BTreeMap<String, String>], name: &str| lines.iter().map(|line| number(line, name)).sum::<f64>() / lines.len() as f64;
    let all: Vec<_> = lines.iter().collect();
    assert!(all.iter().any(|line| line["test/minFDE"] != all[0]["test/minFDE"]), "scenarios differ");
    let whole: Vec<&str> = report.metrics.0.iter().map(|(name, _)| name.as_str()).collect();
    let planning: Vec<&str> = whole.iter().copied().filter(|name| PLANNING.contains(name)).collect();
    assert!(planning.len() >= 2, "{whole:?}");
    for name in &planning {
        assert!(close(mean(&all, name), report.metrics.get(name).unwrap()), "{name}");
    }
    assert!(whole.iter().all(|name| lines[0].contains_key(*name)), "every value of the report: {whole:?}");

    let types = table(&folder.path().join("evaluation/test_by_type.csv"));
    let names: Vec<_> = types.iter().map(|line| line["scenario_type"].as_str()).collect();
    assert_eq!(names, ["following", "waiting"]);
    assert_eq!(report.by_type.keys().collect::<Vec<_>>(), names);
    let json = serde_json::to_value(&report).unwrap();
    for line in &types {
        let (name, own) = (&line["scenario_type"], &report.by_type[&line["scenario_type"]]);
        let part: Vec<_> = all.iter().copied().filter(|other| other["scenario_type"] == *name).collect();
        assert_eq!((own.scenarios, number(line, "scenarios")), (part.len(), part.len() as f64));
        for value in planning.iter().copied().chain(["loss/test_loss"]) {
            let expected = mean(&part, value);
            assert!(close(number(line, value), expected) && close(own.metrics.get(value).unwrap(), expected), "{name} {value}");
            assert!(close(json["by_type"][name]["metrics"][value].as_f64().unwrap(), expected));
        }
    }

    // The loss of a scenario is that of a batch of it alone, and nothing else of the report changes.
    let alone = tempfile::tempdir().unwrap();
    let mut source = labelled(13);
    source.failing.insert(4);
    let single = engine(config(alone.path(), &["precision=64", "batch_size=1"]), source, Host::default()).test().unwrap();
    assert!(close(mean(&all, "loss/test_loss"), single.metrics.get("loss/test_loss").unwrap()));
    let mut source = labelled(13);
    source.failing.insert(4);
    let plain = engine(config(alone.path(), &["precision=64", "batch_size=5"]), source, Host::default()).test().unwrap();
    assert_eq!(plain.metrics, report.metrics);
    assert!(plain.by_type.is_empty() && !serde_json::to_string(&plain).unwrap().contains("by_type"));
    assert!(!alone.path().join("evaluation").exists());
    let mut source = labelled(13);
    source.failing.insert(4);
    let overrides = ["evaluation.by_type=true", "precision=64", "batch_size=5"];
    let by_type = engine(config(alone.path(), &overrides), source, Host::default()).test().unwrap().by_type;
    assert_eq!(by_type, report.by_type);
    assert!(!alone.path().join("evaluation/test_scenarios.csv").exists());
}

#[test]
fn the_best_and_the_worst_scenarios_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = ["callbacks.scenario_scoring_callback.num_store=2", "evaluation.per_scenario_csv=true"];
    let mut engine = engine(config(folder.path(), &overrides), labelled(9), Host::default());
    engine.test().unwrap();
    let mut lines = table(&folder.path().join("evaluation/test_scenarios.csv"));
    lines.sort_by(|a, b| number(a, "loss/test_loss").total_cmp(&number(b, "loss/test_loss")));
    let token = |i: usize| lines[i]["token"].clone();
    let files = |kind: &str| {
        let entries = fs::read_dir(folder.path().join("scenes/epoch=0").join(kind)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for (kind, tokens) in [("best", [token(0), token(1)]), ("worst", [token(8), token(7)])] {
        let mut expected: Vec<String> = tokens.iter().flat_map(|t| [format!("{t}.json"), format!("{t}.svg")]).collect();
        expected.sort();
        assert_eq!(files(kind), expected, "{kind}");
    }
    assert_eq!(files("random").len(), 4);

    let path = folder.path().join("scenes/epoch=0/worst").join(format!("{}.json", token(8)));
    let scene: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((&scene["token"], &scene["split"]), (&token(8).into(), &"test".into()));
    assert!(close(scene["loss"].as_f64().unwrap(), number(&lines[8], "loss/test_loss")));
    let list = |value: &Value| value.as_array().unwrap().clone();
    let (candidates, truth, best) = (list(&scene["candidates"]), list(&scene["truth"]), list(&scene["best_trajectory"]));
    let probabilities: Vec<f64> = candidates.iter().map(|c| c["probability"].as_f64().unwrap()).collect();
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() <= 1e-6, "{probabilities:?}");
    let highest = (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b])).unwrap();
    assert_eq!(candidates[highest]["trajectory"], scene["best_trajectory"]);
    assert_eq!((truth.len(), best.len()), (80, 80));
    // The ego drives straight ahead at a constant speed, along a lane.
    let index: usize = token(8)["scenario ".len()..].parse().unwrap();
    let ego = Roads::new(9).scenario(index).ego[0];
    let last = list(&truth[79]);
    assert!((last[0].as_f64().unwrap() - 8.0 * ego.vx.hypot(ego.vy)).abs() <= 1e-3 && last[1].as_f64().unwrap().abs() <= 1e-3, "{last:?}");
    let lanes = list(&scene["map"]);
    let on_lane = |point: &Value| point[1].as_f64().unwrap().abs() <= 1e-6;
    assert!(lanes.iter().any(|lane| lane["kind"] == "lane" && lane["center"].as_array().unwrap().iter().all(on_lane)), "{lanes:?}");
    let picture = fs::read_to_string(path.with_extension("svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    assert_eq!(picture.matches("<polyline").count(), 3 * lanes.len() + candidates.len() + 2);
}

#[test]
fn a_profile_says_where_the_time_of_the_first_steps_went() {
    let train = |overrides: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::default();
        let mut engine = engine(config(folder.path(), &[&["epochs=2"], overrides].concat()), Roads::new(30), events.host(|_| false));
        assert_eq!(engine.fit().unwrap().steps, 12);
        (folder, buffers(&engine), events.losses())
    };
    let plain = train(&[]);
    assert!(!plain.0.path().join("profiling").exists());
    let profiled = train(&["callbacks.profile_callback.steps=3"]);
    assert!(profiled.1 == plain.1 && profiled.2 == plain.2, "it changes nothing");

    let folder = profiled.0.path().join("profiling");
    let lines = table(&folder.join("profile.csv"));
    let of = |category: &str| lines.iter().filter(|line| line["category"] == category).collect::<Vec<_>>();
    let phases: BTreeMap<&str, f64> = of("phase").iter().map(|line| (line["name"].as_str(), number(line, "calls"))).collect();
    // Both epochs are needed for neither: the profile ends with the first, of which the 3 steps are, and its one validation.
    let expected = [("loading", 3.0), ("forward", 3.0), ("backward", 3.0), ("update", 3.0), ("validation", 1.0)];
    for (name, calls) in expected {
        assert_eq!(phases.get(name), Some(&calls), "{name}: {phases:?}");
    }
    assert!(phases["checkpoint"] >= 1.0 && phases.len() == 6, "{phases:?}");
    let (forward, backward) = (of("forward"), of("backward"));
    assert!(forward.len() > 20 && backward.len() > 20, "{} and {} operations", forward.len(), backward.len());
    assert!(forward.iter().chain(&backward).all(|line| number(line, "calls") % 3.0 == 0.0), "each in every step");
    assert!(forward.iter().any(|line| line["name"].contains('.')), "names have scopes");
    let sum = |lines: &[&BTreeMap<String, String>], name: &str| lines.iter().map(|line| number(line, name)).sum::<f64>();
    assert!(close(sum(&of("phase"), "share"), 1.0) && close(sum(&forward, "share") + sum(&backward, "share"), 1.0));
    for (name, nodes) in [("forward", &forward), ("backward", &backward)] {
        let whole = of("phase").into_iter().find(|line| line["name"] == name).map(|line| number(line, "total_ms")).unwrap();
        assert!((sum(nodes, "total_ms") - whole).abs() <= 1e-3 * whole, "the operations of the {name} pass are all of it");
    }

    let trace: Value = serde_json::from_slice(&fs::read(folder.join("trace.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!(events.len() as f64, sum(&lines.iter().collect::<Vec<_>>(), "calls"));
    for event in events {
        let known = ["phase", "forward", "backward"].contains(&event["cat"].as_str().unwrap());
        assert!(event["ph"] == "X" && known && event["ts"].as_f64() >= Some(0.0) && event["dur"].as_f64() >= Some(0.0), "{event}");
    }
}
