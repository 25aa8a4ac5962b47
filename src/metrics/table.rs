//! Named values, as they are logged.

/// Values by logged name, in the order in which they were logged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricTable(pub Vec<(String, f64)>);

impl MetricTable {
    /// Value of a name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
    /// Sets or adds a value.
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, v)) => *v = value,
            None => self.0.push((name, value)),
        }
    }
}

/// As a mapping; what is not finite is null.
impl serde::Serialize for MetricTable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(n, v)| (n, v)))
    }
}

impl<'de> serde::Deserialize<'de> for MetricTable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = serde_json::Map::deserialize(deserializer)?;
        Ok(Self(values.into_iter().map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN))).collect()))
    }
}
