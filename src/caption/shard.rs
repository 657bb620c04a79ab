//! Which photos are this machine's, where several share a folder: by a hash of the photo's path within
//! it, so that each machine finds the same answer alone.

use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of so many shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Counted from 0.
    pub index: u64,
    /// How many there are, at least 1.
    pub count: u64,
}

/// How many photos there are, and which: equal for two walks that found the same ones in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// How many.
    pub photos: u64,
    /// Sum of the paths' BLAKE3, of which 16 bytes.
    sum: [u64; 2],
}

impl Census {
    /// Counts a photo.
    pub fn add(&mut self, path: &Path) {
        let hash = blake3::hash(path.as_os_str().as_encoded_bytes());
        let (parts, _) = hash.as_bytes().as_chunks::<8>();
        let of_path = [u64::from_le_bytes(parts[0]), u64::from_le_bytes(parts[1])];
        self.add_all(&Self { photos: 1, sum: of_path });
    }

    /// Counts the photos of another one, none of which is in this one.
    pub fn add_all(&mut self, other: &Self) {
        self.photos += other.photos;
        for (sum, more) in self.sum.iter_mut().zip(other.sum) {
            *sum = sum.wrapping_add(more);
        }
    }
}

/// What a run knows when it has gone through all that was named, and leaves in its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Its share.
    pub shard: Shard,
    /// All photos, those of other shares too.
    pub census: Census,
}

impl RunFacts {
    /// What a manifest has them under.
    pub const NAME: &str = "run";
}

/// Variables that schedulers set for each process of many: its number, from 0 on, and how many there are.
const SCHEDULERS: [(&str, &str, &str); 4] = [
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "a Slurm array"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", "a Kubernetes indexed Job"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "MPI"),
    ("RANK", "WORLD_SIZE", "torchrun"),
];

impl Shard {
    /// All there is.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// Whether the photo of this path, within the folder that was named, belongs to the share.
    pub fn takes(self, relative: &Path) -> bool {
        let name = relative.as_os_str().as_encoded_bytes();
        let hash = blake3::hash(name);
        let (first, _) = hash.as_bytes().as_chunks::<8>();
        u64::from_le_bytes(first[0]) % self.count.max(1) == self.index
    }

    /// The share that a scheduler gave this process, and which scheduler. `variable` reads the
    /// environment.
    ///
    /// # Errors
    /// Variables that contradict each other.
    pub fn of_scheduler(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<(Self, &'static str)>, String> {
        for (index_name, count_name, scheduler) in SCHEDULERS {
            let (Some(index), Some(count)) = (variable(index_name), variable(count_name)) else {
                continue;
            };
            let number = |name: &str, text: &str| {
                text.trim().parse::<u64>().map_err(|_| format!("{name} is {text:?}, not a number"))
            };
            let (mut index, count) = (number(index_name, &index)?, number(count_name, &count)?);
            // Arrays may begin at 1, or anywhere.
            if let Some(least) =
                variable("SLURM_ARRAY_TASK_MIN").filter(|_| index_name.starts_with("SLURM"))
            {
                index = index.saturating_sub(number("SLURM_ARRAY_TASK_MIN", &least)?);
            }
            if index >= count {
                return Err(format!(
                    "{index_name} is {index} of {count_name} {count}; expected less"
                ));
            }
            return Ok((count > 1).then_some((Self { index, count }, scheduler)));
        }
        Ok(None)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// `I/N`, I from 0 to N - 1.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?}: expected I/N with I from 0 to N - 1, as 0/8");
        let (index, count) = text.split_once('/').ok_or_else(expected)?;
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| expected());
        let (index, count) = (number(index)?, number(count)?);
        if index < count { Ok(Self { index, count }) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_photo_is_in_one_share() {
        let mut sizes = [0; 8];
        for photo in 0..800 {
            let path = format!("a/{photo}.jpg");
            let takes = |index| Shard { index, count: 8 }.takes(Path::new(&path));
            let owners: Vec<u64> = (0..8).filter(|&index| takes(index)).collect();
            assert_eq!(owners.len(), 1);
            sizes[owners[0] as usize] += 1;
        }
        assert!(sizes.iter().all(|&size| size > 60), "{sizes:?}");
    }

    #[test]
    fn shares_are_read_and_found() {
        assert_eq!("2/8".parse(), Ok(Shard { index: 2, count: 8 }));
        for text in ["8/8", "1", "-1/8", "0/0", "a/b", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        let found = |values: &[(&str, &str)]| {
            let values: std::collections::HashMap<_, _> = values.iter().copied().collect();
            Shard::of_scheduler(|name| values.get(name).map(|value| (*value).to_owned()))
        };
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
        ];
        assert_eq!(found(&slurm).unwrap().unwrap().0, Shard { index: 2, count: 4 });
        let torchrun = [("RANK", "1"), ("WORLD_SIZE", "2")];
        assert_eq!(found(&torchrun).unwrap().unwrap(), (Shard { index: 1, count: 2 }, "torchrun"));
        assert_eq!(found(&[("RANK", "0"), ("WORLD_SIZE", "1")]), Ok(None));
        assert_eq!(found(&[("RANK", "0")]), Ok(None));
        assert!(found(&[("RANK", "5"), ("WORLD_SIZE", "2")]).is_err());
    }
}
