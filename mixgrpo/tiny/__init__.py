"""The embedded tiny world: captioned pictures of shapes, and the pretraining of its base and reward models.

`grammar` (captions, attributes, splits) and `config` are torch-free; `render` draws, `degrade` spoils,
`fit` trains; `flux_base`, `judges` and `preference` each train one kind of model that the `pretrain`
stage saves. May import config, errors; of the layers beside it nothing.
"""
