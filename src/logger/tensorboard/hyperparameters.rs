//! The hyper-parameters of a run as TensorBoard's `hparams` plugin reads them: an experiment, a session that starts, its end, and
//! the scalar `hp_metric`, -1, that stands for a metric as long as none is chosen.

use super::super::{Status, message::Message, now};
use crate::config::tree::Value;

/// Version of the plugin's data.
const VERSION: u64 = 0;
/// The metric of the experiment.
const METRIC: &str = "hp_metric";

/// Summaries that start a session with these settings.
pub(super) fn start(config: &Value) -> [Message; 3] {
    let settings: Vec<(String, Value)> = config.clone().leaves();
    let experiment = summary("_hparams_/experiment", |data| {
        data.message(2, |experiment| {
            for (name, value) in &settings {
                experiment.message(4, |info| {
                    info.text(1, name);
                    info.integer(4, data_type(value));
                });
            }
            experiment.message(5, |metric| metric.message(1, |name| name.text(2, METRIC)));
        });
    });
    let session = summary("_hparams_/session_start_info", |data| {
        data.message(3, |session| {
            for (name, value) in &settings {
                session.message(1, |entry| {
                    entry.text(1, name);
                    entry.message(2, |m| setting(m, value));
                });
            }
            session.double(5, now());
        });
    });
    let metric = Message::new(|summary| {
        summary.message(1, |entry| {
            entry.text(1, METRIC);
            entry.float(2, -1.0);
        });
    });
    [experiment, session, metric]
}

/// Summary that ends the session.
pub(super) fn end(status: Status) -> Message {
    const SUCCESS: u64 = 1;
    const FAILURE: u64 = 2;
    summary("_hparams_/session_end_info", |data| {
        data.message(4, |end| {
            end.integer(1, if status == Status::Failed { FAILURE } else { SUCCESS });
            end.double(2, now());
        });
    })
}

/// A summary without a value, whose metadata carry the plugin's data.
fn summary(tag: &str, fill: impl FnOnce(&mut Message)) -> Message {
    let data = Message::new(|data| {
        data.integer(1, VERSION);
        fill(data);
    });
    Message::new(|summary| {
        summary.message(1, |entry| {
            entry.text(1, tag);
            entry.message(9, |metadata| {
                metadata.message(1, |plugin| {
                    plugin.text(1, "hparams");
                    plugin.bytes(2, &data.0);
                });
            });
        });
    })
}

/// The plugin's number for the type of a setting.
fn data_type(value: &Value) -> u64 {
    match value {
        Value::Bool(_) => 2,
        Value::Int(_) | Value::Float(_) => 3,
        _ => 1,
    }
}

/// A setting as `google.protobuf.Value`. Lists are written as text, which is what the plugin can show.
fn setting(m: &mut Message, value: &Value) {
    match value {
        Value::Int(value) => m.double(2, *value as f64),
        Value::Float(value) => m.double(2, *value),
        Value::Bool(value) => m.integer(4, u64::from(*value)),
        Value::Text(value) => m.text(3, value),
        other => m.text(3, &other.to_string()),
    }
}
