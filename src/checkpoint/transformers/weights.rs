//! Tensors under their public names become ours. Every tensor is used, known to be of no use, or an
//! error.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::CheckpointError;
use super::super::tensors::{HostTensor, HostTensors};
use super::config::{DecoderFamily, Description, EncoderFamily};
use crate::model::HeadKind;

/// Renames, transposes and joins `source` for a captioner as `description` says; the second result
/// tells the public name of each of our tensors, for errors.
pub(super) fn convert(
    source: HostTensors,
    description: &Description,
    file: &Path,
) -> Result<(HostTensors, BTreeMap<String, String>), CheckpointError> {
    let mut import = Import { source, tensors: HostTensors::new(), origins: BTreeMap::new(), file };
    match description.encoder {
        EncoderFamily::Blip => blip_encoder(&mut import, description)?,
        EncoderFamily::Vit => vit_encoder(&mut import, description)?,
    }
    if description.model.decoder.memory_projection {
        import.linear("memory_projection", "enc_to_dec_proj")?;
    }
    match description.decoder {
        DecoderFamily::Gpt2 => gpt2_decoder(&mut import, description)?,
        family => bert_decoder(&mut import, description, family)?,
    }
    let left: Vec<&String> = import.source.keys().filter(|name| !of_no_use(name)).collect();
    if let Some((first, others)) = left.split_first() {
        return Err(CheckpointError::UnexpectedTensor {
            file: file.into(),
            tensor: (*first).clone(),
            others: others.len(),
        });
    }
    Ok((import.tensors, import.origins))
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
}

fn blip_encoder(import: &mut Import, description: &Description) -> Result<(), CheckpointError> {
    let embeddings = "vision_model.embeddings";
    import.patches(&format!("{embeddings}.patch_embedding"))?;
    import.flat("encoder.class_token", &format!("{embeddings}.class_embedding"))?;
    import.flat("encoder.position_embedding", &format!("{embeddings}.position_embedding"))?;
    for layer in 0..description.model.encoder.num_layers {
        let (ours, theirs) =
            (format!("encoder.layers.{layer}"), format!("vision_model.encoder.layers.{layer}"));
        import.norm(&format!("{ours}.attention_norm"), &format!("{theirs}.layer_norm1"))?;
        import.norm(&format!("{ours}.feed_forward_norm"), &format!("{theirs}.layer_norm2"))?;
        import.joint(&format!("{ours}.attention"), &format!("{theirs}.self_attn.qkv"))?;
        import.linear(
            &format!("{ours}.attention.output"),
            &format!("{theirs}.self_attn.projection"),
        )?;
        import.linear(&format!("{ours}.feed_forward.hidden"), &format!("{theirs}.mlp.fc1"))?;
        import.linear(&format!("{ours}.feed_forward.output"), &format!("{theirs}.mlp.fc2"))?;
    }
    import.norm("encoder.final_norm", "vision_model.post_layernorm")
}

fn vit_encoder(import: &mut Import, description: &Description) -> Result<(), CheckpointError> {
    import.patches("encoder.embeddings.patch_embeddings.projection")?;
    import.flat("encoder.class_token", "encoder.embeddings.cls_token")?;
    import.flat("encoder.position_embedding", "encoder.embeddings.position_embeddings")?;
    for layer in 0..description.model.encoder.num_layers {
        let (ours, theirs) =
            (format!("encoder.layers.{layer}"), format!("encoder.encoder.layer.{layer}"));
        import.norm(&format!("{ours}.attention_norm"), &format!("{theirs}.layernorm_before"))?;
        import.norm(&format!("{ours}.feed_forward_norm"), &format!("{theirs}.layernorm_after"))?;
        let (attention, inner) =
            (format!("{ours}.attention"), format!("{theirs}.attention.attention"));
        import.separate(&attention, &inner)?;
        import
            .linear(&format!("{attention}.output"), &format!("{theirs}.attention.output.dense"))?;
        let (hidden, output) =
            (format!("{theirs}.intermediate.dense"), format!("{theirs}.output.dense"));
        import.linear(&format!("{ours}.feed_forward.hidden"), &hidden)?;
        import.linear(&format!("{ours}.feed_forward.output"), &output)?;
    }
    import.norm("encoder.final_norm", "encoder.layernorm")
}

fn bert_decoder(
    import: &mut Import,
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
    if let Some(types) = import.source.remove(&types)
        && let Some(positions) = import.tensors.get_mut("decoder.position_embedding")
    {
        let width = positions.shape.last().copied().unwrap_or(1).max(1);
        for row in positions.values.chunks_mut(width) {
            row.iter_mut().zip(&types.values).for_each(|(position, kind)| *position += kind);
        }
    }
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
    import.copy("decoder.head.bias", &bias)?;
    import.head(description, family)
}

fn gpt2_decoder(import: &mut Import, description: &Description) -> Result<(), CheckpointError> {
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

struct Import<'a> {
    source: HostTensors,
    tensors: HostTensors,
    origins: BTreeMap<String, String>,
    file: &'a Path,
}

impl Import<'_> {
    fn take(&mut self, name: &str) -> Result<HostTensor, CheckpointError> {
        self.source.remove(name).ok_or_else(|| CheckpointError::MissingTensor {
            file: self.file.into(),
            tensor: name.into(),
            shape: Vec::new(),
        })
    }

    /// A tensor of two dimensions: rows, columns.
    fn take_matrix(&mut self, name: &str) -> Result<(usize, usize, Vec<f32>), CheckpointError> {
        let tensor = self.take(name)?;
        match *tensor.shape.as_slice() {
            [rows, columns] => Ok((rows, columns, tensor.values)),
            _ => Err(CheckpointError::TensorShape {
                file: self.file.into(),
                tensor: name.into(),
                found: tensor.shape,
                expected: vec![0, 0],
            }),
        }
    }

    fn put(&mut self, ours: String, theirs: &str, shape: Vec<usize>, values: Vec<f32>) {
        self.origins.insert(ours.clone(), theirs.into());
        self.tensors.insert(ours, HostTensor { shape, values });
    }

    fn copy(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let HostTensor { shape, values } = self.take(theirs)?;
        self.put(ours.into(), theirs, shape, values);
        Ok(())
    }

    /// `[1, …, n, d]` as `[n, d]`.
    fn flat(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let HostTensor { shape, values } = self.take(theirs)?;
        let width = shape.last().copied().unwrap_or(1).max(1);
        let rows = values.len() / width;
        self.put(ours.into(), theirs, vec![rows, width], values);
        Ok(())
    }

    fn norm(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.copy(&format!("{ours}.gamma"), &format!("{theirs}.weight"))?;
        self.copy(&format!("{ours}.beta"), &format!("{theirs}.bias"))
    }

    /// PyTorch's `[out, in]` as `[in, out]`, and its bias if there is one.
    fn linear(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let (out, input, values) = self.take_matrix(&name)?;
        self.put(
            format!("{ours}.weight"),
            &name,
            vec![input, out],
            transposed(out, input, &values),
        );
        self.bias(ours, theirs)
    }

    /// GPT-2's Conv1D, which is `[in, out]` already.
    fn conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.copy(&format!("{ours}.weight"), &format!("{theirs}.weight"))?;
        self.bias(ours, theirs)
    }

    fn bias(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.bias");
        if self.source.contains_key(&name) {
            self.copy(&format!("{ours}.bias"), &name)
        } else {
            Ok(())
        }
    }

    /// A convolution over patches, `[d, 3, side, side]`, as a map of flattened patches.
    fn patches(&mut self, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let HostTensor { shape, values } = self.take(&name)?;
        let out = shape.first().copied().unwrap_or(1).max(1);
        let input = values.len() / out;
        let values = transposed(out, input, &values);
        self.put("encoder.patch_embedding.weight".into(), &name, vec![input, out], values);
        self.bias("encoder.patch_embedding", theirs)
    }

    /// Queries, keys and values in three matrices, `[out, in]`.
    fn separate(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        self.linear(&format!("{ours}.query"), &format!("{theirs}.query"))?;
        let (key, value) = (format!("{theirs}.key"), format!("{theirs}.value"));
        let name = format!("{key}.weight");
        let (out, input, mut joint) = self.take_matrix(&name)?;
        let (more, _, values) = self.take_matrix(&format!("{value}.weight"))?;
        joint.extend(values);
        let (out, ours) = (out + more, format!("{ours}.key_value"));
        self.put(format!("{ours}.weight"), &name, vec![input, out], transposed(out, input, &joint));
        let name = format!("{key}.bias");
        if self.source.contains_key(&name) {
            let mut joint = self.take(&name)?.values;
            joint.extend(self.take(&format!("{value}.bias"))?.values);
            self.put(format!("{ours}.bias"), &name, vec![joint.len()], joint);
        }
        Ok(())
    }

    /// Queries, keys and values in one matrix, `[3·d, in]`.
    fn joint(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let (out, input, values) = self.take_matrix(&name)?;
        let third = out / 3;
        let (query, rest) = values.split_at(third * input);
        let query = transposed(third, input, query);
        let rest = transposed(out - third, input, rest);
        self.put(format!("{ours}.query.weight"), &name, vec![input, third], query);
        self.put(format!("{ours}.key_value.weight"), &name, vec![input, out - third], rest);
        self.joint_bias(ours, theirs)
    }

    /// The same as Conv1D, `[in, 3·d]`.
    fn joint_conv1d(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.weight");
        let (input, out, values) = self.take_matrix(&name)?;
        let third = out / 3;
        let columns = |from: usize, to: usize| -> Vec<f32> {
            values.chunks(out.max(1)).flat_map(|row| row[from..to].iter().copied()).collect()
        };
        let (query, rest) = (columns(0, third), columns(third, out));
        self.put(format!("{ours}.query.weight"), &name, vec![input, third], query);
        self.put(format!("{ours}.key_value.weight"), &name, vec![input, out - third], rest);
        self.joint_bias(ours, theirs)
    }

    fn joint_bias(&mut self, ours: &str, theirs: &str) -> Result<(), CheckpointError> {
        let name = format!("{theirs}.bias");
        if !self.source.contains_key(&name) {
            return Ok(());
        }
        let mut query = self.take(&name)?.values;
        let rest = query.split_off(query.len() / 3);
        self.put(format!("{ours}.query.bias"), &name, vec![query.len()], query);
        self.put(format!("{ours}.key_value.bias"), &name, vec![rest.len()], rest);
        Ok(())
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
                let (vocab, input, values) = self.take_matrix(name)?;
                let values = transposed(vocab, input, &values);
                self.put("decoder.head.output.weight".into(), name, vec![input, vocab], values);
            }
            HeadKind::Tied | HeadKind::TransformTied => {
                self.source.remove(name);
            }
        }
        Ok(())
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed(rows: usize, columns: usize, values: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}
