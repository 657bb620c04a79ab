//! Scenes of coloured shapes with captions and boxes: the data set that ships by recipe.
