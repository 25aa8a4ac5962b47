//! Optimisers and schedules against PyTorch, whose results `tests/reference/optimizers.py` has put into
//! `tests/data/optimizers.json`; that file against a new run where TE_TORCH_PYTHON names a Python with PyTorch.

mod torch_python;

use serde_json::Value;
use std::{fs, path::Path};
use training_engine::{
    backend::{Buffer, Clip, Rule, Update, cpu},
    config::Config,
    graph::{Scalar, Vector},
    optim::schedule::warmup_cosine,
    trainer::{Session, TrainingModule},
};

fn tests() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(tests().join("data/optimizers.json")).unwrap()).unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    let cases = expected()[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Equal but for the order of roundings.
fn same(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-14 * (1.0 + a.abs()), "{what}: {a} and {b}");
}

#[test]
fn updates_follow_pytorch() {
    for case in cases("optimizers") {
        let options = &case["options"];
        let number = |key: &str| options[key].as_f64().unwrap();
        let adam = || ([0, 1].map(|i| options["betas"][i].as_f64().unwrap()), number("eps"));
        let rule = match case["kind"].as_str().unwrap() {
            "Adam" => Rule::Adam { beta: adam().0, epsilon: adam().1 },
            "AdamW" => Rule::AdamW { beta: adam().0, epsilon: adam().1 },
            "SGD" => {
                let nesterov = options["nesterov"].as_bool().unwrap();
                Rule::Sgd { momentum: number("momentum"), dampening: number("dampening"), nesterov }
            }
            other => panic!("{other}"),
        };
        let clip = case["clip"].as_array().map(|clip| match (clip[0].as_str().unwrap(), clip[1].as_f64().unwrap()) {
            ("norm", most) => Clip::Norm(most),
            ("value", most) => Clip::Value(most),
            other => panic!("{other:?}"),
        });
        let batches = case["batches"].as_u64().unwrap();
        let size = case["parameters"][0].as_array().unwrap().len();
        let mut backend = cpu::new(Scalar::F64, 1, size, 0).unwrap();
        backend.write(Buffer::Parameters, &(0..size).map(|i| (3.0 * i as f64).cos()).collect::<Vec<_>>()).unwrap();
        for (step, parameters) in case["parameters"].as_array().unwrap().iter().enumerate() {
            let gradient = |i: usize| {
                let of = |batch: u64| 2.0 * (i as f64 + 0.7 * (step as u64 * batches + batch) as f64).sin();
                (0..batches).map(of).sum::<f64>()
            };
            backend.write(Buffer::Gradients, &(0..size).map(gradient).collect::<Vec<_>>()).unwrap();
            let (weight_decay, count, scale) = (number("weight_decay"), step as u64 + 1, 1.0 / batches as f64);
            let update = Update { rule, learning_rate: 0.05, weight_decay, count, scale, clip };
            assert!(backend.update(&update, &[Vector { offset: 0, len: size }]).unwrap().applied);
            for (ours, theirs) in backend.read(Buffer::Parameters).unwrap().iter().zip(numbers(parameters)) {
                same(*ours, theirs, &format!("{} {options} {clip:?}, step {step}", case["kind"]));
            }
            assert!(backend.read(Buffer::Gradients).unwrap().iter().all(|&g| g == 0.0));
        }
    }
}

#[test]
fn schedules_follow_pytorch_and_lightning() {
    for case in cases("schedules") {
        let mut options = case["options"].clone();
        let count = |key: &str| case[key].as_u64().unwrap() as usize;
        options["_target_"] = format!("torch.optim.{}", case["kind"].as_str().unwrap()).into();
        options["lr"] = 0.05.into();
        let mut config = serde_json::json!({
            "custom_trainer": null, "objective": {"imitation_objective": null}, "optimizer": options,
            "lightning": {"trainer": {"params": {"max_epochs": count("epochs")}}},
            "model": {"dim": 8, "num_heads": 1, "encoder_depth": 1, "decoder_depth": 1},
        });
        if let Some(main) = case["main"].as_array() {
            config["lr_scheduler"] = main[1].clone();
            config["lr_scheduler"]["_target_"] = format!("torch.optim.lr_scheduler.{}", main[0].as_str().unwrap()).into();
        }
        if let Some(warm) = case["warm"].as_array() {
            config["warm_up_lr_scheduler"] = serde_json::json!({"lr_lambda": {"warm_up_steps": warm[0], "warm_up_strategy": warm[1]}});
        }
        let config = Config::from_text(&config.to_string(), &[]).unwrap();
        let session = || Session::new(&config.model, &config.objectives, Scalar::F64, 1, 0).unwrap();
        let [mut module, mut other] = [(), ()].map(|()| TrainingModule::new(session(), &config));
        [&mut module, &mut other].into_iter().for_each(|module| module.begin(count("batches")));
        let mut rates = case["rates"].as_array().unwrap().iter();
        for epoch in 0..count("epochs") {
            for batch in 1..=count("batches") {
                let rate = numbers(rates.next().unwrap());
                let what = format!("{} {} {}, epoch {epoch}, batch {batch}", case["kind"], case["main"], case["warm"]);
                same(module.learning_rate(), rate[0], &what);
                same(module.momentum(), rate[1], &what);
                module.end_batch(batch);
                // A module that goes on from the state is where this one is.
                other.set_state(module.state());
                assert_eq!((other.learning_rate(), other.momentum()), (module.learning_rate(), module.momentum()));
            }
            module.end_epoch();
        }
        assert!(rates.next().is_none());
    }
}

#[test]
fn the_cosine_follows_the_published_one() {
    for case in cases("cosines") {
        let (epochs, warmup) = (case["epochs"].as_u64().unwrap() as usize, case["warmup_epochs"].as_u64().unwrap() as usize);
        for (epoch, rate) in numbers(&case["rates"]).into_iter().enumerate() {
            same(warmup_cosine(epoch, 1e-3, epochs, warmup), rate, &format!("{epochs} {warmup} {epoch}"));
        }
    }
}

#[test]
fn the_expected_numbers_are_those_of_pytorch() {
    let Some(python) = torch_python::find("the stored numbers of optimisers", "torch") else { return };
    compare(&serde_json::from_str(&torch_python::run(&python, "reference/optimizers.py", &[])).unwrap(), &expected(), "");
}

/// The same tree, numbers but for rounding; the version of PyTorch may differ.
fn compare(new: &Value, stored: &Value, path: &str) {
    match (new, stored) {
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{path}");
            a.iter().filter(|(key, _)| *key != "torch").for_each(|(key, value)| compare(value, &b[key], &format!("{path}/{key}")));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| compare(a, b, &format!("{path}/{i}")));
        }
        (Value::Number(a), Value::Number(b)) => same(a.as_f64().unwrap(), b.as_f64().unwrap(), path),
        (a, b) => assert_eq!(a, b, "{path}"),
    }
}
