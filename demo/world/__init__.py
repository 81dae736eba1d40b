"""The demo world: drawn videos of coloured shapes whose every property is known, so that prompts, identity and background can be measured."""
