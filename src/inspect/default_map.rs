//! Which map an inspection shows unless told otherwise, and how good it was found to be: `inspect.json` of
//! the checkpoint folder.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::InspectError;
use super::relevance::{Method, RelevanceConfig};
use crate::checkpoint::{Checkpoint, INSPECT_FILE, atomic};

/// Version of the file's format.
const VERSION: u32 = 1;

/// The map that an inspection shows unless told otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultMap {
    /// The format's version, 1.
    pub version: u32,
    /// How the map is computed.
    pub map: RelevanceConfig,
    /// How it was found to be the best; none where nobody measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The best map of each method, measured alike, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<MethodMerit>,
}

/// The best map of a method, and how good it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodMerit {
    /// The map.
    pub map: RelevanceConfig,
    /// What [`Measured::by`] says of it, in `[0, 1]`.
    pub value: f64,
}

/// What a map was measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The share of words whose map peaks in the box of what they name.
    Pointing,
    /// The mean share of a word's map that lies on its own photo, of four side by side and of two.
    Grid,
}

/// How good a map was, on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The data set's name.
    pub data: String,
    /// Its split.
    pub split: String,
    /// Images of the split that were looked at.
    pub images: usize,
    /// What was measured.
    pub by: Measure,
    /// The value, in `[0, 1]`.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// The value of raw attention, the mean of layers and heads, on the same words.
    pub attention: f64,
    /// The value of chance.
    pub chance: f64,
    /// How many maps it is the best of.
    pub of: usize,
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |value: f64| format!("{:.1} %", 100.0 * value);
        match self.by {
            Measure::Pointing => {
                write!(formatter, "peaks in the box of {} of words", percent(self.value))?;
            }
            Measure::Grid => {
                write!(formatter, "{} of it on the right photo of several", percent(self.value))?;
            }
        }
        if let Some([low, high]) = self.interval {
            write!(formatter, " ({} to {})", percent(low), percent(high))?;
        }
        write!(
            formatter,
            "; raw attention {}, chance {}; the best of {} maps on {}, {}",
            percent(self.attention),
            percent(self.chance),
            self.of,
            self.data,
            self.split
        )
    }
}

impl DefaultMap {
    /// A map with what was found of it.
    pub fn new(map: RelevanceConfig, measured: Option<Measured>) -> Self {
        Self { version: VERSION, map, measured, methods: Vec::new() }
    }

    /// How far a map was found to be faithful, in a few words.
    pub fn faithful(&self, map: &RelevanceConfig) -> Option<String> {
        let measured = self.measured.as_ref()?;
        if *map == self.map {
            return Some(measured.to_string());
        }
        let MethodMerit { value, .. } = self.methods.iter().find(|found| found.map == *map)?;
        let percent = 100.0 * value;
        Some(match measured.by {
            Measure::Pointing => format!("peaks in the box of {percent:.1} % of words"),
            Measure::Grid => format!("{percent:.1} % of it on the right photo of several"),
        })
    }

    /// Of a checkpoint: what its `inspect.json` says, else raw attention, the mean of layers and heads.
    ///
    /// # Errors
    /// [`InspectError::DefaultMap`]: a file that is of another kind or names what the model does not have.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, InspectError> {
        Ok(Self::stored(checkpoint)?
            .unwrap_or_else(|| Self::new(RelevanceConfig::new(Method::Attention), None)))
    }

    /// What the checkpoint's `inspect.json` says, if there is one.
    ///
    /// # Errors
    /// See [`Self::of`].
    pub fn stored(checkpoint: &Checkpoint) -> Result<Option<Self>, InspectError> {
        let Some(value) = &checkpoint.default_map else { return Ok(None) };
        let invalid = |problem: String| InspectError::DefaultMap {
            file: checkpoint.folder.join(INSPECT_FILE),
            problem,
        };
        let found: Self =
            serde_path_to_error::deserialize(value).map_err(|error| invalid(error.to_string()))?;
        if found.version > VERSION {
            let problem = format!(
                "`version` is {}; this patchword reads up to {VERSION}: update it",
                found.version
            );
            return Err(invalid(problem));
        }
        let decoder = &checkpoint.model.config().decoder;
        found.map.check(decoder).map_err(|error| invalid(format!("`map`: {error}")))?;
        Ok(Some(found))
    }

    /// Writes `inspect.json` into a checkpoint's folder, over one that is there. The file.
    ///
    /// # Errors
    /// A folder that is none, or a file that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<PathBuf, InspectError> {
        let file = folder.join(INSPECT_FILE);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| InspectError::Device(error.to_string()))?;
        text.push(b'\n');
        atomic::replace_file(&file, &text)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::relevance::{Pool, Position};
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        let map = RelevanceConfig {
            layer: Some(2),
            pool: Pool::Max,
            position: Position::Reading,
            ..RelevanceConfig::new(Method::GradCam)
        };
        let measured = Measured {
            data: "shapes".into(),
            split: "val".into(),
            images: 200,
            by: Measure::Pointing,
            value: 0.971,
            interval: Some([0.96, 0.98]),
            attention: 0.904,
            chance: 0.079,
            of: 60,
        };
        let said = measured.to_string();
        for part in ["97.1 %", "(96.0 % to 98.0 %)", "90.4 %", "7.9 %", "60 maps on shapes, val"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let default = DefaultMap::new(map, Some(measured));
        let folder = tempfile::tempdir().unwrap();
        let file = default.save(folder.path()).unwrap();
        let read: DefaultMap = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(read, default);
        let short = r#"{"version": 1, "map": {"method": "gradient"}}"#;
        let short: DefaultMap = serde_json::from_str(short).unwrap();
        assert_eq!(short, DefaultMap::new(RelevanceConfig::new(Method::Gradient), None));
        assert_eq!(short.faithful(&short.map), None);
        let rollout = RelevanceConfig::new(Method::Rollout);
        let merit = MethodMerit { map: rollout.clone(), value: 0.5 };
        let all = DefaultMap { methods: vec![merit], ..default };
        assert!(all.faithful(&all.map).unwrap().contains("97.1 %"));
        assert_eq!(all.faithful(&rollout).unwrap(), "peaks in the box of 50.0 % of words");
        assert_eq!(all.faithful(&RelevanceConfig::new(Method::Occlusion)), None);
    }
}
