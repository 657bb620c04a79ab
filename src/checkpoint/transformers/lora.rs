//! Low-rank factors of public modules as factors of our matrices: the key maps, followed for adapters.
//!
//! Of a module of theirs, `[out, in]` (or Conv1D's `[in, out]`), `B·A` is added; ours is `[in, out]`, so that
//! `Aᵀ·Bᵀ` is added to it. Where ours is a part of theirs it takes rows of `B`, where it is several of
//! theirs their factors stand side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::super::peft::{Factors, PeftAdapter};
use super::super::tensors::{HostTensor, HostTensors};
use super::super::{CheckpointError, Contents};
use super::config::{DecoderFamily, Description};
use super::export::describe;
use super::recipe::transposed;
use super::weights::{KeyMap, map_all};
use crate::model::HeadKind;

/// The factors of an adapter under our names, `X.lora.a` and `X.lora.b`.
///
/// # Errors
/// A module that a model of this description does not have, by its public name.
pub(super) fn factors(
    adapter: &PeftAdapter,
    description: &Description,
) -> Result<HostTensors, CheckpointError> {
    let (used, ours) = (BTreeSet::new(), HostTensors::new());
    let mut map = LoraMap { modules: &adapter.modules, used, ours };
    map_all(&mut map, description)?;
    let unknown: Vec<&String> =
        adapter.modules.keys().filter(|module| !map.used.contains(*module)).collect();
    match unknown.split_first() {
        None => Ok(map.ours),
        Some((module, others)) => Err(CheckpointError::UnexpectedTensor {
            file: adapter.file.clone(),
            tensor: format!("{module}.lora_A.weight"),
            others: others.len(),
        }),
    }
}

struct LoraMap<'a> {
    modules: &'a BTreeMap<String, Factors>,
    used: BTreeSet<String>,
    ours: HostTensors,
}

impl LoraMap<'_> {
    /// The factors of a module or of the weight of one, which is then used.
    fn take(&mut self, theirs: &str) -> Option<Factors> {
        let module = theirs.strip_suffix(".weight").unwrap_or(theirs);
        let factors = self.modules.get(module)?;
        self.used.insert(module.into());
        Some(factors.clone())
    }

    fn put(&mut self, ours: &str, factors: Option<Factors>) {
        let Some(Factors { a, b, input, output, rank }) = factors else { return };
        let a = HostTensor { shape: vec![input, rank], values: transposed(rank, input, &a) };
        let b = HostTensor { shape: vec![rank, output], values: transposed(output, rank, &b) };
        self.ours.insert(format!("{ours}.lora.a"), a);
        self.ours.insert(format!("{ours}.lora.b"), b);
    }

    fn thirds(&mut self, ours: &str, theirs: &str) {
        let Some(factors) = self.take(theirs) else { return };
        let third = factors.output / 3;
        for (part, rows) in [("query", 0..third), ("key_value", third..factors.output)] {
            let b = factors.b[rows.start * factors.rank..rows.end * factors.rank].to_vec();
            let part_of_it = Factors { b, output: rows.len(), ..factors.clone() };
            self.put(&format!("{ours}.{part}.weight"), Some(part_of_it));
        }
    }
}

/// Our factors as those of public modules, by name, as peft has them; nothing for a model that
/// transformers has no class for.
pub(in crate::checkpoint) fn public(
    ours: &HostTensors,
    contents: &Contents,
) -> Option<BTreeMap<String, Factors>> {
    let special = contents.tokenizer.special_tokens();
    let description =
        describe(contents.model, contents.architecture, special, contents.generate).ok()?;
    let mut map = LoraExport { ours, theirs: BTreeMap::new() };
    map_all(&mut map, &description).ok()?;
    Some(map.theirs)
}

struct LoraExport<'a> {
    ours: &'a HostTensors,
    theirs: BTreeMap<String, Factors>,
}

impl LoraExport<'_> {
    fn take(&self, ours: &str) -> Option<Factors> {
        let a = self.ours.get(&format!("{ours}.lora.a"))?;
        let b = self.ours.get(&format!("{ours}.lora.b"))?;
        let (&[input, rank], &[_, output]) = (a.shape.as_slice(), b.shape.as_slice()) else {
            return None;
        };
        Some(Factors {
            a: transposed(input, rank, &a.values),
            b: transposed(rank, output, &b.values),
            input,
            output,
            rank,
        })
    }

    fn put(&mut self, theirs: &str, factors: Option<Factors>) {
        if let Some(factors) = factors {
            self.theirs.insert(theirs.strip_suffix(".weight").unwrap_or(theirs).into(), factors);
        }
    }

    /// Queries beside keys and values, of which one may have no factors.
    fn whole(&mut self, ours: &str, theirs: &str) {
        let none = |like: &Factors, output: usize| Factors {
            a: Vec::new(),
            b: Vec::new(),
            rank: 0,
            input: like.input,
            output,
        };
        let query = self.take(&format!("{ours}.query.weight"));
        let rest = self.take(&format!("{ours}.key_value.weight"));
        let (query, rest) = match (query, rest) {
            (Some(query), None) => {
                let rest = none(&query, 2 * query.output);
                (Some(query), Some(rest))
            }
            (None, Some(rest)) => (Some(none(&rest, rest.output / 2)), Some(rest)),
            both => both,
        };
        self.put(theirs, side_by_side(query, rest));
    }
}

/// Two modules that read the same, as one: `[a₁; a₂]` and a matrix of blocks.
fn side_by_side(first: Option<Factors>, second: Option<Factors>) -> Option<Factors> {
    let none = |like: &Factors| Factors { rank: 0, a: Vec::new(), b: Vec::new(), ..like.clone() };
    let (first, second) = match (first, second) {
        (None, None) => return None,
        (Some(one), None) => (one.clone(), none(&one)),
        (None, Some(one)) => (none(&one), one),
        (Some(first), Some(second)) => (first, second),
    };
    let mut a = first.a.clone();
    a.extend(&second.a);
    let rank = first.rank + second.rank;
    let mut b = Vec::with_capacity((first.output + second.output) * rank);
    for row in 0..first.output {
        b.extend(&first.b[row * first.rank..(row + 1) * first.rank]);
        b.extend(std::iter::repeat_n(0.0, second.rank));
    }
    for row in 0..second.output {
        b.extend(std::iter::repeat_n(0.0, first.rank));
        b.extend(&second.b[row * second.rank..(row + 1) * second.rank]);
    }
    Some(Factors { a, b, input: first.input, output: first.output + second.output, rank })
}

impl KeyMap for LoraMap<'_> {
    fn has(&self, _: &str) -> bool {
        true
    }

    fn follows_every_way(&self) -> bool {
        // Which modules an adapter has says little of how the rest would be named.
        true
    }

    fn copy(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        // Conv1D. A table of tokens is shared with the head, where peft does not add to it.
        if ours.ends_with(".weight") {
            let factors = self.take(theirs);
            self.put(ours, factors);
        }
        Ok(())
    }

    fn flat(&mut self, _: &str, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn stacked(&mut self, _: &str, _: &[&str]) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn gapped(&mut self, _: &str, _: &str, _: Range<usize>) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn add_first_row(&mut self, _: &str, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn transposed(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let factors = self.take(theirs);
        self.put(ours, factors);
        Ok(())
    }

    fn bias(&mut self, _: &str, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn patches(&mut self, theirs: &str) -> Result<(), CheckpointError> {
        self.transposed("encoder.patch_embedding.weight", theirs)
    }

    fn patches_channels_last(&mut self, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn three(
        &mut self,
        ours: &str,
        [query, key, value]: [String; 3],
    ) -> Result<(), CheckpointError> {
        self.transposed(&format!("{ours}.query.weight"), &query)?;
        let both = side_by_side(self.take(&key), self.take(&value));
        self.put(&format!("{ours}.key_value.weight"), both);
        Ok(())
    }

    fn joint(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.thirds(ours, theirs);
        Ok(())
    }

    fn joint_conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.thirds(ours, theirs);
        Ok(())
    }

    fn head(
        &mut self,
        description: &Description,
        family: DecoderFamily,
    ) -> Result<(), CheckpointError> {
        match description.model.decoder.head {
            HeadKind::Untied | HeadKind::TransformUntied => {
                self.transposed("decoder.head.output.weight", family.output())
            }
            HeadKind::Tied | HeadKind::TransformTied => Ok(()),
        }
    }

    fn head_bias(
        &mut self,
        _: &Description,
        _: DecoderFamily,
        _: &str,
    ) -> Result<(), CheckpointError> {
        Ok(())
    }
}

impl KeyMap for LoraExport<'_> {
    fn has(&self, _: &str) -> bool {
        true
    }

    fn in_memory(&self) -> bool {
        true
    }

    fn copy(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.transposed(ours, theirs)
    }

    fn flat(&mut self, _: &str, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn stacked(&mut self, _: &str, _: &[&str]) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn gapped(&mut self, _: &str, _: &str, _: Range<usize>) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn add_first_row(&mut self, _: &str, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn transposed(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let factors = self.take(ours);
        self.put(theirs, factors);
        Ok(())
    }

    fn bias(&mut self, _: &str, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn patches(&mut self, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn patches_channels_last(&mut self, _: &str) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn three(
        &mut self,
        ours: &str,
        [query, key, value]: [String; 3],
    ) -> Result<(), CheckpointError> {
        self.transposed(&format!("{ours}.query.weight"), &query)?;
        if let Some(both) = self.take(&format!("{ours}.key_value.weight")) {
            let half = both.output / 2;
            for (theirs, rows) in [(key, 0..half), (value, half..both.output)] {
                let b = both.b[rows.start * both.rank..rows.end * both.rank].to_vec();
                self.put(&theirs, Some(Factors { b, output: rows.len(), ..both.clone() }));
            }
        }
        Ok(())
    }

    fn joint(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.whole(ours, theirs);
        Ok(())
    }

    fn joint_conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.whole(ours, theirs);
        Ok(())
    }

    fn head(
        &mut self,
        description: &Description,
        family: DecoderFamily,
    ) -> Result<(), CheckpointError> {
        match description.model.decoder.head {
            HeadKind::Untied | HeadKind::TransformUntied => {
                self.transposed("decoder.head.output.weight", family.output())
            }
            HeadKind::Tied | HeadKind::TransformTied => Ok(()),
        }
    }

    fn head_bias(
        &mut self,
        _: &Description,
        _: DecoderFamily,
        _: &str,
    ) -> Result<(), CheckpointError> {
        Ok(())
    }
}
