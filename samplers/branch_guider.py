"""The model's prediction for one conditioning at a time, past the guidance."""
import comfy.samplers


class BranchGuider(comfy.samplers.CFGGuider):
    """Predicts with the one of its conditionings that `branch` names. No guidance is computed, neither a negative prompt's nor
    the extra passes of guidance nodes (PAG, SAG)."""

    def __init__(self, model, **conds):
        super().__init__(model)
        self.inner_set_conds(conds)
        self.branch = next(iter(conds))

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006  (the host's signature)
        return comfy.samplers.calc_cond_batch(self.inner_model, [self.conds[self.branch]], x, timestep, model_options)[0]

    def embeddings(self, branch: str) -> list:
        return [c["model_conds"]["c_crossattn"].cond for c in self.conds[branch]]

    def replace(self, branch: str, psi: list) -> None:
        for c, p in zip(self.conds[branch], psi):
            c["model_conds"] = {**c["model_conds"], "c_crossattn": c["model_conds"]["c_crossattn"]._copy_with(p)}
