//! Composition, overrides, interpolations and scalars, side by side with OmegaConf and Hydra where TE_PYTHON has them.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use training_engine::config::{self, Config};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config")
}

fn primary() -> String {
    std::fs::read_to_string(folder().join("default_training.yaml")).unwrap()
}

/// What the script prints as JSON; none without a Python that has Hydra.
fn python(script: &str, input: &serde_json::Value) -> Option<serde_json::Value> {
    let program = std::env::var("TE_PYTHON").unwrap_or_else(|_| "python3".into());
    if !Command::new(&program).args(["-c", "import hydra, omegaconf"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
        println!("skipped: {program} has no hydra-core");
        return None;
    }
    let mut child = Command::new(program)
        .args(["-c", script])
        .env("NUPLAN_EXP_ROOT", "/experiments")
        .env_remove("NUPLAN_DATA_ROOT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn json(tree: &config::tree::Value) -> serde_json::Value {
    use config::tree::Value;
    match tree {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        // A float is told from a whole number, and from what JSON does not have.
        Value::Float(value) if value.is_finite() => serde_json::json!({"float": value}),
        Value::Float(value) => serde_json::json!({"float": value.to_string().to_lowercase()}),
        Value::Text(value) => value.as_str().into(),
        Value::List(items) => items.iter().map(json).collect::<Vec<_>>().into(),
        Value::Map(entries) => serde_json::Value::Object(entries.iter().map(|(key, value)| (key.clone(), json(value))).collect()),
    }
}

const PRELUDE: &str = r#"
import json, math, sys, warnings
warnings.simplefilter("ignore")
from omegaconf import OmegaConf
def plain(x):
    if isinstance(x, float): return {"float": x if math.isfinite(x) else str(x)}
    if isinstance(x, dict): return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, list): return [plain(v) for v in x]
    return x
def final(c):
    OmegaConf.resolve(c)
    return plain(OmegaConf.to_container(c))
given = json.load(sys.stdin)
"#;

#[test]
fn the_published_files_compose_to_the_tree_that_hydra_makes() {
    let cases: [&[&str]; 7] = [
        &["+training=train_pluto"],
        &["+training=train_pluto", "epochs=40", "lr=1e-4", "+custom_trainer.use_contrast_loss=true", "~lightning.trainer.params.devices"],
        &["+training=train_pluto", "optimizer=adamw", "lr_scheduler=one_cycle_lr", "warm_up_lr_scheduler=linear_warm_up", "~worker"],
        &[
            "splitter=nuplan",
            "objective=[imitation_objective]",
            "training_metric=[avg_displacement_error]",
            "job_name=x",
            "~custom_trainer",
        ],
        &["+training=train_pluto", "splitter.log_splits.train=[a, 'b c', 1]", "++cache.extra={a: {b: 1.5}}", "checkpoint='x=y,z'"],
        &[
            "+training=train_pluto",
            "cache.cache_path=${oc.env:NUPLAN_EXP_ROOT}/cache",
            "wandb.name=run-${seed}",
            "seed=7",
            "+model@other=pluto_model",
        ],
        &["+training=train_pluto", "lightning={trainer: {params: {max_epochs: 3}}}", "~callbacks"],
    ];
    let script = format!(
        "{PRELUDE}\nfrom hydra import compose, initialize_config_dir\nfrom datetime import datetime, timezone\n\
         OmegaConf.register_new_resolver('now', lambda f: datetime.now(timezone.utc).strftime(f), replace=True)\n\
         with initialize_config_dir(given['folder'], version_base='1.1'):\n    \
             print(json.dumps([final(compose('default_training', overrides=o)) for o in given['cases']]))"
    );
    let Some(theirs) = python(&script, &serde_json::json!({"folder": folder(), "cases": cases})) else { return };
    let text = primary().replace("${oc.env:NUPLAN_EXP_ROOT}", "/experiments");
    for (overrides, theirs) in cases.iter().zip(theirs.as_array().unwrap()) {
        // The environment is Python's alone, so that tests do not change their own.
        let overrides: Vec<String> = overrides.iter().map(|x| x.replace("${oc.env:NUPLAN_EXP_ROOT}", "/experiments")).collect();
        let mut all = overrides.iter().map(String::as_str).collect::<Vec<_>>();
        all.push("group=/experiments/exp");
        assert_eq!(&json(&config::resolve(&text, Some(&folder()), &all).unwrap()), theirs, "{overrides:?}");
    }
}

#[test]
fn the_published_files_load_as_they_are_meant() {
    let overrides = ["+training=train_pluto", "group=/tmp", "lightning.trainer.params.accelerator=cpu"];
    let config = Config::compose(&primary(), Some(&folder()), &overrides).unwrap();
    assert_eq!((config.max_epochs(), config.optimizer.lr, config.loader.batch_size), (Some(25), 1e-3, 2));
    assert!(config.model.use_hidden_proj && config.model.cat_x && config.loader.pin_memory);
    assert_eq!(config.splitter.train_logs, ["log_1", "log_2"]);
    assert!(config.run.output_dir.starts_with("/tmp/training/pluto"));
    let without_effect: Vec<_> = config.without_effect.0.iter().map(|(key, _)| *key).collect();
    assert!(without_effect.contains(&"worker") && without_effect.contains(&"scenario_builder"), "{without_effect:?}");
    assert_eq!(Config::from_text(&config.to_text(), &[]).unwrap(), config);
}

#[test]
fn scalars_and_interpolations_are_omegaconfs() {
    let texts: Vec<String> = [
        "1e-3",
        "1.0",
        "1",
        "yes",
        "off",
        "00:16:00:00",
        "1:30",
        "1:30.5",
        "1e5",
        "0o10",
        "010",
        "1_000",
        ".5",
        "3.",
        "-2.5E+3",
        "-7",
        "0x1F",
        ".inf",
        "-.inf",
        ".nan",
        "e5",
        ".",
        "1.2.3",
        "08",
        "2024-01-01",
        "~",
        "null",
        "y",
        "-.5",
        ".5e3",
        ".5e+3",
        "1__0.5",
        "!!str 5",
        "!!float 5",
        "'yes'",
        "\"a\\tb\"",
        "|\n  x\n  y",
        "0b101",
        "+1",
        "TRUE",
        "tRue",
        "08.5",
        "1_",
        "0_1",
        "1:60",
    ]
    .iter()
    .map(|scalar| format!("a: {scalar}"))
    .chain(
        [
            "a: 1\nb: ${a}\nc: x${a}y\nd: {e: \"${..a}\", f: \"${.e}\"}\n",
            "a: [1, {b: 2.5e-7}]\nc: ${a[1].b}\nd: z${a.1.b}\ne: ${a}\n",
            "a: null\nb: t\nt: {k: true}\nc: \"${${b}.k} ${a} ${t}\"\n",
            "a: '\\${x} \\\\${b} $y'\nb: 3\n",
            "a: ${oc.env:TE_NOT_SET,3}\nb: ${oc.env:TE_NOT_SET,null}\nc: ${oc.decode:'1e-3'}\nd: ${oc.select:nothing,7}\n",
            "a: ???\nb: ${a}\nc: x${a}\n",
            "a:\n  b: ${c}\nc: {d: 1, e: \"${.d}\"}\nf: ${a.b.e}\n",
            "a: {x: 1, y: [2]}\nb: ${oc.dict.keys:a}\nc: ${oc.dict.values:a}\n",
            "a: &n {x: 1}\nb: {<<: *n, y: 2}\n",
            "a: [1e16, 1e-5, 123456.0]\nb: ${a.0} ${a.1} ${a.2}\n",
        ]
        .map(str::to_owned),
    )
    .collect();
    let Some(theirs) = python(&format!("{PRELUDE}\nprint(json.dumps([final(OmegaConf.create(t)) for t in given]))"), &texts.clone().into())
    else {
        return;
    };
    for (text, theirs) in texts.iter().zip(theirs.as_array().unwrap()) {
        assert_eq!(&json(&config::resolve(text, None, &[]).unwrap()), theirs, "{text}");
    }
}

#[test]
fn faults_of_composition_name_what_is_there() {
    let fault = |text: &str, overrides: &[&str]| config::resolve(text, Some(&folder()), overrides).unwrap_err().to_string();
    for (text, overrides, part) in [
        ("defaults: [{model: nothing}]", &[][..], "'model' has pluto_model"),
        ("defaults: [{splitter: ???}]", &[], "splitter=... of 'splitter' has nuplan"),
        ("defaults: [{override model: pluto_model}]", &[], "no defaults list has this group"),
        ("defaults: [nowhere]", &[], "there is no 'nowhere.yaml'"),
        ("defaults: [../config/default_common]", &[], "leaves the folder"),
        ("defaults: 3", &[], "not a list"),
        ("a: 1", &["model=pluto_model"], "no defaults list has this group"),
        ("a: 1", &["+a=2"], "stands there already"),
        ("a: 1", &["~b"], "does not stand there"),
        ("a: ${b}\nb: ${a}", &[], "refers to itself"),
        ("a: ${nothing}", &[], "does not exist"),
        ("a: ${nothing:1}", &[], "oc.env"),
        ("a: ${oc.env:TE_NOT_SET}", &[], "TE_NOT_SET"),
        ("a: ${b", &[], "no end"),
    ] {
        let fault = fault(text, overrides);
        assert!(fault.contains(part), "{text}: {fault}");
    }
    let fault = |text: &str| Config::from_text(text, &[]).unwrap_err().to_string();
    assert!(fault("lr: ???").contains("key 'lr': is '???'"));
    assert!(fault("modle: 3").contains("'model'"), "{}", fault("modle: 3"));
    assert!(fault("model: {_target_: src.models.other.Model}").contains("known is src.models.pluto.pluto_model.PlanningModel"));
    assert!(fault("model: {polygon_channel: 5}").contains("5 must be 6"));
}
