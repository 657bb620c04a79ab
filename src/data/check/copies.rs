//! Images that are the same, byte for byte.
use std::collections::HashMap;

use rayon::prelude::*;

use super::super::{Cost, ImageRecord, Problem, ProblemKind};

/// The groups of records whose images are equal byte for byte, in the order of the records. Only images of
/// equal length are read, and those of which nobody knows the length: in a table.
pub(super) fn copies<'a>(records: &[&'a ImageRecord]) -> Vec<Vec<&'a ImageRecord>> {
    let lengths: Vec<Option<u64>> =
        records.par_iter().map(|record| record.image.length().ok().flatten()).collect();
    let mut num_of_length: HashMap<u64, usize> = HashMap::new();
    for &length in lengths.iter().flatten() {
        *num_of_length.entry(length).or_default() += 1;
    }
    let is_shared = |length: &u64| num_of_length.get(length).is_some_and(|&count| count > 1);
    let hashes: Vec<Option<(u64, u64)>> = records
        .par_iter()
        .zip(&lengths)
        .map(|(record, length)| {
            if !length.as_ref().is_none_or(is_shared) {
                return None;
            }
            record.image.read().ok().map(|bytes| (bytes.len() as u64, content_hash(&bytes)))
        })
        .collect();
    let mut at: HashMap<(u64, u64), usize> = HashMap::new();
    let mut groups: Vec<Vec<&ImageRecord>> = Vec::new();
    for (&record, hash) in records.iter().zip(hashes) {
        let Some(hash) = hash else { continue };
        let group = *at.entry(hash).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        // Equal hashes are a hint only: the files are compared.
        let is_copy = groups[group].first().is_none_or(
            |first| matches!((first.image.read(), record.image.read()), (Ok(a), Ok(b)) if a == b),
        );
        if is_copy {
            groups[group].push(record);
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// FNV-1a over words of eight bytes; the file's length tells apart what the padding makes equal.
fn content_hash(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |hash: u64, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        mixed ^ (mixed >> 29)
    })
}

/// A copy within a split only weighs a little more in training; a copy in another split lets the model
/// be judged on what it has seen.
pub(super) fn report_copies(
    copies: &[&ImageRecord],
    problems: &mut Vec<Problem>,
    notes: &mut Vec<String>,
) {
    let Some((first, others)) = copies.split_first() else { return };
    for other in others {
        if other.split == first.split {
            notes.push(format!(
                "{}: image {:?} equals {:?} byte for byte (both in {})",
                other.origin, other.id, first.id, first.split
            ));
        } else {
            problems.push(Problem {
                kind: ProblemKind::TwoSplits,
                place: other.origin.to_string(),
                detail: format!(
                    "image {:?} in {} equals {:?} in {} byte for byte (expected each picture in \
                     one split)",
                    other.id, other.split, first.id, first.split
                ),
                cost: Cost::Nothing,
            });
        }
    }
}
