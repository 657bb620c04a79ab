//! Tensors under their public names become ours. Every tensor is used, known to be of no use, or an
//! error. Each of our parameters is a recipe, followed when the model asks for it, so that no more than
//! one tensor is in memory beside the model.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::super::CheckpointError;
use super::super::weight_file::WeightFile;
use super::config::{DecoderFamily, Description, EncoderFamily};
use super::encoder_keys::{self, map_encoder};
use super::recipe::{Piece, Recipe};
use crate::checkpoint::tensors::{ParameterSource, side_by_side};
use crate::model::HeadKind;

/// Recipes for the parameters of a captioner as `description` says.
pub(super) fn import<'a>(
    source: &'a WeightFile,
    description: &Description,
) -> Result<Import<'a>, CheckpointError> {
    let mut import = Import::new(source);
    map_all(&mut import, description)?;
    import.finish(of_no_use)
}

/// The names of all parameters of a captioner, ours and theirs.
pub(super) fn map_all(
    import: &mut impl KeyMap,
    description: &Description,
) -> Result<(), CheckpointError> {
    let (keys, before) = match description.encoder {
        EncoderFamily::Blip => (&encoder_keys::BLIP[..], "vision_model."),
        EncoderFamily::BlipOriginal => (&encoder_keys::BLIP_ORIGINAL[..], "visual_encoder."),
        EncoderFamily::Vit | EncoderFamily::Deit => (&encoder_keys::VIT[..], "encoder."),
    };
    map_encoder(import, keys, before, &description.model.encoder)?;
    if description.model.decoder.memory_projection {
        import.linear("memory_projection", "enc_to_dec_proj")?;
    }
    match description.decoder {
        DecoderFamily::Gpt2 => gpt2_decoder(import, description)?,
        family => bert_decoder(import, description, family)?,
    }
    Ok(())
}

/// What can be between parameters of ours and public tensors: told once, and done either way.
pub(super) trait KeyMap {
    /// Whether a public tensor of this name is there, or is to be written.
    fn has(&self, theirs: &str) -> bool;

    /// Whether names are those of the model in memory, not of its files.
    fn in_memory(&self) -> bool {
        false
    }

    /// Whether each of several ways to name tensors is to be followed, not one of them.
    fn follows_every_way(&self) -> bool {
        false
    }

    /// The same.
    fn copy(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError>;

    /// `[1, …, n, d]` as `[n, d]`.
    fn flat(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError>;

    /// Tensors `[1, …, n, d]`, one below the other.
    fn stacked(&mut self, ours: &str, theirs: &[&str]) -> Result<(), CheckpointError>;

    /// The first row of a table, if there is one, for every row of a parameter.
    fn add_first_row(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError>;

    /// PyTorch's `[out, in]` as `[in, out]`.
    fn transposed(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError>;

    /// A map's bias, if it has one.
    fn bias(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError>;

    /// A convolution over patches, `[d, 3, side, side]`, as a map of flattened patches.
    fn patches(&mut self, theirs: &str) -> Result<(), CheckpointError>;

    /// A map of patches whose channels lie side by side, `[d, side·side·3]`, as one of ours, `[3·side·side, d]`.
    fn patches_channels_last(&mut self, theirs: &str) -> Result<(), CheckpointError>;

    /// A table `[1, …, n, d]` that lacks the `rows` which ours has as zeros.
    fn gapped(
        &mut self,
        ours: &str,
        theirs: &str,
        rows: Range<usize>,
    ) -> Result<(), CheckpointError>;

    /// Queries, keys and values in three matrices, `[out, in]`.
    fn three(&mut self, ours: &str, theirs: [String; 3]) -> Result<(), CheckpointError>;

    /// Queries, keys and values in one matrix, `[3·d, in]`.
    fn joint(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError>;

    /// The same as Conv1D, `[in, 3·d]`.
    fn joint_conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError>;

    /// The output matrix, or nothing where it is the token embedding once more.
    fn head(
        &mut self,
        description: &Description,
        family: DecoderFamily,
    ) -> Result<(), CheckpointError>;

    /// BERT's bias of the logits, which is there twice.
    fn head_bias(
        &mut self,
        description: &Description,
        family: DecoderFamily,
        theirs: &str,
    ) -> Result<(), CheckpointError>;

    /// A layer norm.
    fn norm(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.copy(&format!("{ours}.gamma"), &format!("{theirs}.weight"))?;
        self.copy(&format!("{ours}.beta"), &format!("{theirs}.bias"))
    }

    /// PyTorch's linear map, and its bias if there is one.
    fn linear(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.transposed(&format!("{ours}.weight"), &format!("{theirs}.weight"))?;
        self.bias(ours, theirs)
    }

    /// GPT-2's Conv1D, which is `[in, out]` already.
    fn conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.copy(&format!("{ours}.weight"), &format!("{theirs}.weight"))?;
        self.bias(ours, theirs)
    }

    /// [`Self::three`], with their usual names.
    fn separate(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.three(ours, ["query", "key", "value"].map(|part| format!("{theirs}.{part}")))
    }
}

/// Position ids, the causal masks that old GPT-2 files carry, a ViT's pooler, and the bias that BERT's
/// head has twice.
fn of_no_use(name: &str) -> bool {
    let ends = |end: &str| name.ends_with(end);
    ends(".position_ids")
        || ends(".token_type_ids")
        || ends("attn.bias")
        || ends("attn.masked_bias")
        || ends("crossattention.bias")
        || ends("crossattention.masked_bias")
        || ends("predictions.decoder.bias")
        || ends("lm_head.decoder.bias")
        || name.starts_with("encoder.pooler.")
        || name.starts_with("encoder.embeddings.mask_token")
}

fn bert_decoder(
    import: &mut impl KeyMap,
    description: &Description,
    family: DecoderFamily,
) -> Result<(), CheckpointError> {
    let body = family.body();
    import.copy("decoder.token_embedding", &family.tokens())?;
    import.copy(
        "decoder.position_embedding",
        &format!("{body}.embeddings.position_embeddings.weight"),
    )?;
    // Every token of a caption is of type 0: its vector may as well lie in the positions.
    let types = format!("{body}.embeddings.token_type_embeddings.weight");
    import.add_first_row("decoder.position_embedding", &types)?;
    import.norm("decoder.embedding_norm", &format!("{body}.embeddings.LayerNorm"))?;
    for layer in 0..description.model.decoder.num_layers {
        let (ours, theirs) =
            (format!("decoder.layers.{layer}"), format!("{body}.encoder.layer.{layer}"));
        for (own, attention) in
            [("self_attention", "attention"), ("cross_attention", "crossattention")]
        {
            let (own, attention) = (format!("{ours}.{own}"), format!("{theirs}.{attention}"));
            import.separate(&own, &format!("{attention}.self"))?;
            import.linear(&format!("{own}.output"), &format!("{attention}.output.dense"))?;
            import.norm(&format!("{own}_norm"), &format!("{attention}.output.LayerNorm"))?;
        }
        let feed_forward = format!("{ours}.feed_forward");
        import
            .linear(&format!("{feed_forward}.hidden"), &format!("{theirs}.intermediate.dense"))?;
        import.linear(&format!("{feed_forward}.output"), &format!("{theirs}.output.dense"))?;
        import.norm(&format!("{feed_forward}_norm"), &format!("{theirs}.output.LayerNorm"))?;
    }
    let (dense, norm, bias) = match family {
        DecoderFamily::Roberta => {
            let of = |part: &str| format!("decoder.lm_head.{part}");
            (of("dense"), of("layer_norm"), of("bias"))
        }
        _ => {
            let root = body.trim_end_matches(".bert");
            let of = |part: &str| format!("{root}.cls.predictions.{part}");
            (of("transform.dense"), of("transform.LayerNorm"), of("bias"))
        }
    };
    import.linear("decoder.head.transform", &dense)?;
    import.norm("decoder.head.transform_norm", &norm)?;
    import.head_bias(description, family, &bias)?;
    import.head(description, family)
}

fn gpt2_decoder(
    import: &mut impl KeyMap,
    description: &Description,
) -> Result<(), CheckpointError> {
    let family = DecoderFamily::Gpt2;
    let body = family.body();
    import.copy("decoder.token_embedding", &family.tokens())?;
    import.copy("decoder.position_embedding", &format!("{body}.wpe.weight"))?;
    for layer in 0..description.model.decoder.num_layers {
        let (ours, theirs) = (format!("decoder.layers.{layer}"), format!("{body}.h.{layer}"));
        import.norm(&format!("{ours}.self_attention_norm"), &format!("{theirs}.ln_1"))?;
        import.norm(&format!("{ours}.cross_attention_norm"), &format!("{theirs}.ln_cross_attn"))?;
        import.norm(&format!("{ours}.feed_forward_norm"), &format!("{theirs}.ln_2"))?;
        let (own, attention) = (format!("{ours}.self_attention"), format!("{theirs}.attn"));
        import.joint_conv1d(&own, &format!("{attention}.c_attn"))?;
        import.conv1d(&format!("{own}.output"), &format!("{attention}.c_proj"))?;
        let (own, attention) =
            (format!("{ours}.cross_attention"), format!("{theirs}.crossattention"));
        import.conv1d(&format!("{own}.query"), &format!("{attention}.q_attn"))?;
        import.conv1d(&format!("{own}.key_value"), &format!("{attention}.c_attn"))?;
        import.conv1d(&format!("{own}.output"), &format!("{attention}.c_proj"))?;
        let feed_forward = format!("{ours}.feed_forward");
        import.conv1d(&format!("{feed_forward}.hidden"), &format!("{theirs}.mlp.c_fc"))?;
        import.conv1d(&format!("{feed_forward}.output"), &format!("{theirs}.mlp.c_proj"))?;
    }
    import.norm("decoder.final_norm", &format!("{body}.ln_f"))?;
    import.head(description, family)
}

/// Recipes for our parameters by name, and which public tensors they use.
pub(super) struct Import<'a> {
    source: &'a WeightFile,
    recipes: BTreeMap<String, Recipe>,
    used: BTreeSet<String>,
}

impl ParameterSource for Import<'_> {
    fn names(&self) -> Vec<String> {
        self.recipes.keys().cloned().collect()
    }

    fn shape(&self, parameter: &str) -> Option<Vec<usize>> {
        self.recipes.get(parameter).map(|recipe| recipe.shape.clone())
    }

    fn take(&mut self, parameters: &[String]) -> Result<Vec<Vec<f32>>, CheckpointError> {
        side_by_side(parameters, |name| {
            self.recipes.get(name).map_or(Ok(Vec::new()), |recipe| recipe.follow(self.source))
        })
    }

    fn public(
        &self,
        parameter: &str,
        found: Vec<usize>,
        expected: Vec<usize>,
    ) -> (String, Vec<usize>, Vec<usize>) {
        match self.recipes.get(parameter) {
            Some(recipe) => recipe.public(self.source, found, expected),
            None => (parameter.into(), found, expected),
        }
    }
}

impl<'a> Import<'a> {
    pub(super) fn new(source: &'a WeightFile) -> Self {
        Self { source, recipes: BTreeMap::new(), used: BTreeSet::new() }
    }

    /// Checks that every tensor is used or known to be of no use.
    pub(super) fn finish(self, of_no_use: impl Fn(&str) -> bool) -> Result<Self, CheckpointError> {
        let unknown = |name: &&str| !self.used.contains(*name) && !of_no_use(name);
        let left: Vec<&str> = self.source.names().filter(unknown).collect();
        if let Some((first, others)) = left.split_first() {
            return Err(CheckpointError::UnexpectedTensor {
                file: self.source.origin().into(),
                tensor: (*first).into(),
                others: others.len(),
            });
        }
        Ok(self)
    }

    /// The shape of a tensor, which is then used.
    fn shape_of(&mut self, name: &str) -> Result<Vec<usize>, CheckpointError> {
        let shape = self.source.shape(name).ok_or_else(|| CheckpointError::MissingTensor {
            file: self.source.origin().into(),
            tensor: name.into(),
            shape: Vec::new(),
        })?;
        self.used.insert(name.into());
        Ok(shape.to_vec())
    }

    /// A tensor of two dimensions: rows, columns.
    fn matrix(&mut self, name: &str) -> Result<(usize, usize), CheckpointError> {
        let shape = self.shape_of(name)?;
        match *shape.as_slice() {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(self.misshapen(name, shape, vec![0, 0])),
        }
    }

    /// A tensor of one dimension.
    fn vector(&mut self, name: &str) -> Result<usize, CheckpointError> {
        let shape = self.shape_of(name)?;
        match *shape.as_slice() {
            [length] => Ok(length),
            _ => Err(self.misshapen(name, shape, vec![0])),
        }
    }

    fn misshapen(&self, name: &str, found: Vec<usize>, expected: Vec<usize>) -> CheckpointError {
        let file = self.source.origin().into();
        CheckpointError::TensorShape { file, tensor: name.into(), found, expected }
    }

    fn put(&mut self, ours: String, recipe: Recipe) {
        self.recipes.insert(ours, recipe);
    }

    fn joint_bias(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.bias");
        if !self.source.contains(&name) {
            return Ok(());
        }
        let length = self.vector(&name)?;
        for (part, rows) in [("query", 0..length / 3), ("key_value", length / 3..length)] {
            let shape = vec![rows.len()];
            let recipe = Recipe::of(vec![Piece { name: name.clone(), rows }], shape);
            self.put(format!("{ours}.{part}.bias"), recipe);
        }
        Ok(())
    }
}

impl KeyMap for Import<'_> {
    fn has(&self, theirs: &str) -> bool {
        self.source.contains(theirs)
    }

    fn patches_channels_last(&mut self, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let (out, input) = self.matrix(&name)?;
        let recipe = Recipe::channels_last(Piece { name, rows: 0..out }, [input, out]);
        self.put("encoder.patch_embedding.weight".into(), recipe);
        self.bias("encoder.patch_embedding", theirs)
    }

    fn gapped(
        &mut self,
        ours: &str,
        theirs: &str,
        rows: Range<usize>,
    ) -> Result<(), CheckpointError> {
        let shape = self.shape_of(theirs)?;
        let width = shape.last().copied().unwrap_or(1).max(1);
        let all = shape.iter().product::<usize>() / width + rows.len();
        let recipe = Recipe::gapped(Piece::whole(theirs, &shape), [all, width], rows);
        self.put(ours.into(), recipe);
        Ok(())
    }

    fn copy(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let shape = self.shape_of(theirs)?;
        self.put(ours.into(), Recipe::of(vec![Piece::whole(theirs, &shape)], shape));
        Ok(())
    }

    /// `[1, …, n, d]` as `[n, d]`.
    fn flat(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let shape = self.shape_of(theirs)?;
        let width = shape.last().copied().unwrap_or(1).max(1);
        let rows = shape.iter().product::<usize>() / width;
        self.put(ours.into(), Recipe::of(vec![Piece::whole(theirs, &shape)], vec![rows, width]));
        Ok(())
    }

    /// The first row of a table, if there is one, for every row of a parameter.
    fn add_first_row(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        if !self.source.contains(theirs) {
            return Ok(());
        }
        let (rows, width) = self.matrix(theirs)?;
        let Some(recipe) = self.recipes.get_mut(ours) else { return Ok(()) };
        let expected = recipe.shape.last().copied().unwrap_or(0);
        if rows == 0 || width != expected {
            return Err(self.misshapen(theirs, vec![rows, width], vec![1, expected]));
        }
        recipe.added = Some(Piece { name: theirs.into(), rows: 0..1 });
        Ok(())
    }

    /// Tensors `[1, …, n, d]`, one below the other.
    fn stacked(&mut self, ours: &str, theirs: &[&str]) -> Result<(), CheckpointError> {
        let (mut pieces, mut elements, mut width) = (Vec::new(), 0, 1);
        for name in theirs {
            let shape = self.shape_of(name)?;
            width = shape.last().copied().unwrap_or(1).max(1);
            elements += shape.iter().product::<usize>();
            pieces.push(Piece::whole(name, &shape));
        }
        self.put(ours.into(), Recipe::of(pieces, vec![elements / width, width]));
        Ok(())
    }

    fn transposed(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let (out, input) = self.matrix(theirs)?;
        let piece = Piece { name: theirs.into(), rows: 0..out };
        self.put(ours.into(), Recipe::transposed(vec![piece], [input, out]));
        Ok(())
    }

    fn bias(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.bias");
        if self.source.contains(&name) { self.copy(&format!("{ours}.bias"), &name) } else { Ok(()) }
    }

    /// A convolution over patches, `[d, 3, side, side]`, as a map of flattened patches.
    fn patches(&mut self, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let shape = self.shape_of(&name)?;
        let out = shape.first().copied().unwrap_or(1);
        let input = shape.iter().product::<usize>() / out.max(1);
        let recipe = Recipe::transposed(vec![Piece::whole(&name, &shape)], [input, out]);
        self.put("encoder.patch_embedding.weight".into(), recipe);
        self.bias("encoder.patch_embedding", theirs)
    }

    fn three(&mut self, ours: &str, theirs: [String; 3]) -> Result<(), CheckpointError> {
        let [query, key, value] = theirs;
        self.linear(&format!("{ours}.query"), &query)?;
        let (key_weight, value_weight) = (format!("{key}.weight"), format!("{value}.weight"));
        let (out, input) = self.matrix(&key_weight)?;
        let (more, other) = self.matrix(&value_weight)?;
        if other != input {
            return Err(self.misshapen(&value_weight, vec![more, other], vec![more, input]));
        }
        let pieces = vec![
            Piece { name: key_weight, rows: 0..out },
            Piece { name: value_weight, rows: 0..more },
        ];
        let joint = Recipe::transposed(pieces, [input, out + more]);
        self.put(format!("{ours}.key_value.weight"), joint);
        let (key, value) = (format!("{key}.bias"), format!("{value}.bias"));
        if self.source.contains(&key) {
            let (out, more) = (self.vector(&key)?, self.vector(&value)?);
            let pieces =
                vec![Piece { name: key, rows: 0..out }, Piece { name: value, rows: 0..more }];
            self.put(format!("{ours}.key_value.bias"), Recipe::of(pieces, vec![out + more]));
        }
        Ok(())
    }

    /// Queries, keys and values in one matrix, `[3·d, in]`.
    fn joint(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let (out, input) = self.matrix(&name)?;
        let third = out / 3;
        for (part, rows) in [("query", 0..third), ("key_value", third..out)] {
            let shape = [input, rows.len()];
            let recipe = Recipe::transposed(vec![Piece { name: name.clone(), rows }], shape);
            self.put(format!("{ours}.{part}.weight"), recipe);
        }
        self.joint_bias(ours, theirs)
    }

    /// The same as Conv1D, `[in, 3·d]`.
    fn joint_conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let (input, out) = self.matrix(&name)?;
        let third = out / 3;
        for (part, columns) in [("query", 0..third), ("key_value", third..out)] {
            let piece = Piece { name: name.clone(), rows: 0..input };
            let recipe = Recipe::columns(piece, out, columns);
            self.put(format!("{ours}.{part}.weight"), recipe);
        }
        self.joint_bias(ours, theirs)
    }

    /// The output matrix, or nothing where it is the token embedding once more.
    fn head(
        &mut self,
        description: &Description,
        family: DecoderFamily,
    ) -> Result<(), CheckpointError> {
        let name = family.output();
        match description.model.decoder.head {
            HeadKind::Untied | HeadKind::TransformUntied => {
                self.transposed("decoder.head.output.weight", name)
            }
            HeadKind::Tied | HeadKind::TransformTied => {
                self.used.insert(name.into());
                Ok(())
            }
        }
    }

    fn head_bias(
        &mut self,
        description: &Description,
        family: DecoderFamily,
        theirs: &str,
    ) -> Result<(), CheckpointError> {
        // Where the head is tied the two are one, even if a file says otherwise; where it is not, newer
        // versions of transformers train them apart and use that of the matrix.
        let own = format!("{}.bias", family.output().trim_end_matches(".weight"));
        let untied = description.model.decoder.head == HeadKind::TransformUntied;
        if untied && self.source.contains(&own) {
            self.used.insert(theirs.into());
            self.copy("decoder.head.bias", &own)
        } else {
            self.copy("decoder.head.bias", theirs)
        }
    }
}
