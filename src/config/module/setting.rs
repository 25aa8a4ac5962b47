//! How the standard module's settings are read and written.

use super::{Aggregate, Anneal, Metric, ModuleKind, Objective, OptimizerKind, ScheduleKind, Term, WarmUpStrategy};
use crate::config::{
    setting::{Setting, words},
    tree::Value,
};

words!(Aggregate, "mean, sum or max", Mean = "mean", Sum = "sum", Max = "max");
words!(Anneal, "cos or linear", Cosine = "cos", Linear = "linear");
words!(WarmUpStrategy, "linear or constant", Linear = "linear", Constant = "constant");

/// Settings that are the name of one of a few classes, of which the last part counts, or null.
macro_rules! classes {
    ($type:ident, $expected:literal, $([null => $null:ident],)? $($variant:ident = $path:literal / $class:literal $(| $other:literal)*),+) => {
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;
            fn read(node: &Value) -> Option<Self> {
                match node {
                    $(Value::Null => Some(Self::$null),)?
                    Value::Text(path) => match path.rsplit('.').next()? {
                        $($class $(| $other)* => Some(Self::$variant),)+
                        _ => None,
                    },
                    _ => None,
                }
            }
            fn write(&self) -> Value {
                match self {
                    $(Self::$null => Value::Null,)?
                    $(Self::$variant => Value::Text(concat!($path, $class).into())),+
                }
            }
        }
    };
}

classes!(
    ModuleKind,
    "the class of PLUTO's trainer (LightningTrainer), or null for the standard module",
    [null => Standard],
    Pluto = "src.models.pluto.pluto_trainer." / "LightningTrainer"
);
classes!(
    OptimizerKind,
    "torch.optim.Adam, AdamW or SGD",
    Adam = "torch.optim." / "Adam" | "adam",
    AdamW = "torch.optim." / "AdamW" | "adamw",
    Sgd = "torch.optim." / "SGD" | "sgd"
);
classes!(
    ScheduleKind,
    "torch.optim.lr_scheduler.OneCycleLR, MultiStepLR or null",
    [null => Constant],
    OneCycle = "torch.optim.lr_scheduler." / "OneCycleLR",
    MultiStep = "torch.optim.lr_scheduler." / "MultiStepLR"
);

/// Class or name of an entry of a group, and its other options.
type Member<'a> = (String, Vec<&'a (String, Value)>);

/// Entries of a group.
fn members(node: &Value) -> Option<Vec<Member<'_>>> {
    let Value::Map(entries) = node else { return matches!(node, Value::Null).then(Vec::new) };
    let mut members = Vec::new();
    for (key, node) in entries {
        let options: &[(String, Value)] = match node {
            Value::Map(options) => options,
            Value::Null => &[],
            _ => return None,
        };
        let (target, others): (Vec<_>, Vec<_>) = options.iter().partition(|(name, _)| name == "_target_");
        let name = match target.first() {
            Some((_, Value::Text(path))) => path.rsplit('.').next()?.to_owned(),
            Some(_) => return None,
            None => key.clone(),
        };
        members.push((name, others));
    }
    Some(members)
}

/// Each member once.
fn unique<T, K: PartialEq>(list: Vec<T>, key: impl Fn(&T) -> K) -> Option<Vec<T>> {
    let twice = (1..list.len()).any(|i| list[..i].iter().any(|other| key(other) == key(&list[i])));
    (!twice).then_some(list)
}

impl Setting for Vec<Term> {
    const EXPECTED: &'static str = "a group of objectives, each once, NAME: {weight: 1.0} or with _target_, of imitation_objective, \
        agents_imitation_objective, trajectory_weight_decay_imitation_objective, or PLUTO's reg_loss, cls_loss, ref_free_reg_loss, \
        collision_loss, prediction_loss, contrastive_loss";
    const TREE: bool = true;
    fn read(node: &Value) -> Option<Self> {
        let term = |(name, options): Member| {
            let mut term = Term { objective: Objective::find(&name)?, weight: 1.0 };
            for (option, value) in options {
                match option.as_str() {
                    "weight" => term.weight = f64::read(value)?,
                    _ => return None,
                }
            }
            Some(term)
        };
        unique(members(node)?.into_iter().map(term).collect::<Option<_>>()?, |term| term.objective)
    }
    fn write(&self) -> Value {
        let entry = |term: &Term| (term.objective.name().to_owned(), Value::Map(vec![("weight".to_owned(), Value::Float(term.weight))]));
        Value::Map(self.iter().map(entry).collect())
    }
}

impl Setting for Vec<Metric> {
    const EXPECTED: &'static str = "a group of metrics, each once, NAME: {_target_: CLASS}, of {avg,final}_{displacement,heading}_error, \
        the same with agents_ before, or PLUTO's minADE, minFDE, MR, PredAvgADE, PredAvgFDE";
    const TREE: bool = true;
    fn read(node: &Value) -> Option<Self> {
        let metric = |(name, options): Member| Metric::find(&name).filter(|_| options.is_empty());
        unique(members(node)?.into_iter().map(metric).collect::<Option<_>>()?, |metric| *metric)
    }
    fn write(&self) -> Value {
        // An empty group would be lost.
        let entry = |m: &Metric| (m.name().to_owned(), Value::Map(vec![("_target_".to_owned(), Value::Text(m.name().to_owned()))]));
        Value::Map(self.iter().map(entry).collect())
    }
}

impl Setting for Vec<(String, f64)> {
    const EXPECTED: &'static str = "a group of weights by scenario type";
    const TREE: bool = true;
    fn read(node: &Value) -> Option<Self> {
        match node {
            Value::Null => Some(Vec::new()),
            Value::Map(entries) => entries.iter().map(|(name, weight)| Some((name.clone(), f64::read(weight)?))).collect(),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        Value::Map(self.iter().map(|(name, weight)| (name.clone(), Value::Float(*weight))).collect())
    }
}

impl Setting for [f64; 2] {
    const EXPECTED: &'static str = "a list of two numbers";
    fn read(node: &Value) -> Option<Self> {
        let Value::List(items) = node else { return None };
        items.iter().map(f64::read).collect::<Option<Vec<_>>>()?.try_into().ok()
    }
    fn write(&self) -> Value {
        Value::List(self.iter().map(Setting::write).collect())
    }
}

impl Setting for Vec<usize> {
    const EXPECTED: &'static str = "a list of whole numbers that are not negative";
    fn read(node: &Value) -> Option<Self> {
        let Value::List(items) = node else { return None };
        items.iter().map(usize::read).collect()
    }
    fn write(&self) -> Value {
        Value::List(self.iter().map(Setting::write).collect())
    }
}
