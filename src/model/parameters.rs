//! The parameters of a model, each with its path and what it is for: the one way in which modules are walked.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterRole {
    /// The matrix of a linear map, `[inputs, outputs]`.
    Matrix,
    /// The kernel of a convolution, `[outputs, inputs, height, width]`.
    Convolution,
    /// Rows that are looked up or put in front: embeddings, positions, prefix tokens.
    Table,
    /// What a map adds.
    Bias,
    /// What a norm multiplies by.
    NormScale,
    /// What a norm adds.
    NormShift,
    /// What a residual branch is multiplied by (CaiT).
    LayerScale,
    /// The first factor of a low-rank adapter, `[inputs, rank]`.
    AdapterA,
    /// The second factor of a low-rank adapter, `[rank, outputs]`.
    AdapterB,
}

/// Where a parameter stands: the names of the modules around it and its own, outermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParameterPath(Vec<String>);

impl ParameterPath {
    /// The names with dots between them, as checkpoints have them:
    /// `decoder.layers.0.cross_attention.query.weight`.
    pub fn dotted(&self) -> String {
        self.0.join(".")
    }

    /// The first name: the part of the model that it is in.
    pub fn part(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Whether one of its names is `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|own| own == name)
    }

    /// What the parameter is for, if it has `rank` dimensions.
    pub fn role(&self, rank: usize) -> ParameterRole {
        let (around, name) = match self.0.as_slice() {
            [.., around, name] => (around.as_str(), name.as_str()),
            [name] => ("", name.as_str()),
            [] => ("", ""),
        };
        match (around, name, rank) {
            (_, "gamma", _) => ParameterRole::NormScale,
            (_, "beta", _) => ParameterRole::NormShift,
            (_, name, _) if name.ends_with("_scale") => ParameterRole::LayerScale,
            ("lora", "a", _) => ParameterRole::AdapterA,
            ("lora", "b", _) => ParameterRole::AdapterB,
            (_, _, 0 | 1) => ParameterRole::Bias,
            (_, "weight", 4) => ParameterRole::Convolution,
            (_, "weight", _) => ParameterRole::Matrix,
            _ => ParameterRole::Table,
        }
    }
}

impl From<&str> for ParameterPath {
    /// Reads a dotted path.
    fn from(dotted: &str) -> Self {
        Self(dotted.split('.').map(String::from).collect())
    }
}

/// Sees every parameter.
pub trait VisitParameters {
    /// Sees one.
    fn visit<const D: usize>(&mut self, path: &ParameterPath, parameter: &Param<Tensor<D>>);
}

/// Replaces every parameter.
pub trait MapParameters {
    /// What comes in the place of one.
    fn map<const D: usize>(
        &mut self,
        path: &ParameterPath,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>>;
}

/// Shows the parameters of `module` to `visitor`, in the order of the module.
pub fn visit_parameters<M: Module>(module: &M, visitor: &mut impl VisitParameters) {
    module.visit(&mut Walk { path: ParameterPath::default(), with: visitor });
}

/// `module` with what `mapper` makes of its parameters.
pub fn map_parameters<M: Module>(module: M, mapper: &mut impl MapParameters) -> M {
    module.map(&mut Walk { path: ParameterPath::default(), with: mapper })
}

/// Keeps the path while Burn walks.
struct Walk<'a, T> {
    path: ParameterPath,
    with: &'a mut T,
}

impl<T: VisitParameters> ModuleVisitor for Walk<'_, T> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        self.with.visit(&self.path, parameter);
    }
}

impl<T: MapParameters> ModuleMapper for Walk<'_, T> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.with.map(&self.path, parameter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use burn::tensor::Device;

    use super::super::Captioner;
    use super::super::tests::tiny;
    use super::*;

    struct Roles(Vec<(String, ParameterRole)>);

    impl VisitParameters for Roles {
        fn visit<const D: usize>(&mut self, path: &ParameterPath, _: &Param<Tensor<D>>) {
            self.0.push((path.dotted(), path.role(D)));
        }
    }

    #[test]
    fn every_parameter_has_the_role_that_its_name_says() {
        let model = Captioner::new(&tiny(), &Device::flex()).unwrap();
        let mut roles = Roles(Vec::new());
        visit_parameters(&model, &mut roles);
        let of = |end: &str| -> BTreeSet<String> {
            let those = roles.0.iter().filter(|(name, _)| name.ends_with(end));
            those.map(|(_, role)| format!("{role:?}")).collect()
        };
        let only = |role: &str| BTreeSet::from([role.to_string()]);
        assert_eq!(of("norm.gamma"), only("NormScale"));
        assert_eq!(of("norm.beta"), only("NormShift"));
        assert_eq!(of(".query.weight"), only("Matrix"));
        assert_eq!(of(".query.bias"), only("Bias"));
        assert_eq!(of("_embedding"), only("Table"));
        assert!(roles.0.len() > 40, "{}", roles.0.len());
    }

    #[test]
    fn adapters_are_told_from_the_matrices_that_they_adapt() {
        let role = |dotted: &str, rank| ParameterPath::from(dotted).role(rank);
        assert_eq!(role("decoder.layers.0.query.weight.lora.a", 2), ParameterRole::AdapterA);
        assert_eq!(role("decoder.layers.0.query.weight.lora.b", 2), ParameterRole::AdapterB);
        assert_eq!(role("encoder.backbone.stem.weight", 4), ParameterRole::Convolution);
        assert_eq!(role("encoder.layers.0.attention_scale", 1), ParameterRole::LayerScale);
        assert_eq!(role("encoder.prefix_tokens", 2), ParameterRole::Table);
        assert_eq!(ParameterPath::from("encoder.stem.weight").part(), "encoder");
    }
}
