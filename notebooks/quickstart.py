# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: a model that designs its own team
#
# One small language model learns, by reinforcement, to **design** a multi-agent system for each question and to **be**
# its agents ([MetaAgent-X](https://arxiv.org/abs/2605.14212)). This notebook trains it for a few minutes on a CPU,
# shows the curves, asks it a question and reads an episode.

# %%
import os
import subprocess
import sys
from pathlib import Path

if "google.colab" in sys.modules:
    REPOSITORY = ""  # @param {type: "string", placeholder: "https://... where this notebook comes from"}
    if not Path("metaagentx").exists():
        subprocess.run(["git", "clone", "--depth=1", "--", REPOSITORY, "metaagentx"], check=True)
        packages = ("metaagentx/third_party/pycosat", "--editable", "metaagentx[notebook]")
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *packages], check=True)
    os.chdir("metaagentx")

root = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "configs" / "tiny.py").exists())
os.chdir(root)
sys.path.insert(0, str(root))

# %% [markdown]
# ## Train a short run
#
# The settings are those of `configs/tiny.py`, which `make train` runs in full, cut short: a cold start that imitates a
# noisy teacher, then stagewise reinforcement learning, in which executor and designer take turns. The same run
# continues if this cell is stopped and started again.

# %%
TRAINING_STEPS = 40  # @param {type: "integer"}
COLD_START_STEPS = 400  # @param {type: "integer"}
WORKDIR = Path(os.environ.get("METAAGENTX_WORKDIR", "runs/quickstart")).resolve()

from configs import tiny
from metaagentx import settings

config = tiny.get_config()
config.train.steps = TRAINING_STEPS
config.cold_start.steps = COLD_START_STEPS
config.evaluate.questions = 200

if os.environ.get("METAAGENTX_SMOKE"):  # a run that only shows that every cell works
    config.train.steps, config.train.questions, config.train.episodes_every = 2, 2, 1
    config.cold_start.steps, config.cold_start.demonstrations, config.cold_start.batch = 4, 64, 16
    config.cold_start.optimizer.warmup_steps = 1
    config.tree.designs = config.tree.executions = 2
    config.evaluate.questions = config.evaluate.validation_questions = 4
    config.evaluate.designs = config.evaluate.executions = 1
    config.engine.slots, config.engine.prompt_buckets, config.engine.admit_buckets = 16, (64,), (16,)
    config.pack.row_buckets, config.pack.micro_rows = (32,), 32

run = settings.read(config)

# %%
from metaagentx.train import train

results = train(run, WORKDIR)

# %% [markdown]
# ## Watch the curves
#
# Held-out accuracy after each evaluation, and what the designs cost. Phases in which the executor trains are shaded.

# %%
import matplotlib.pyplot as plt

from metaagentx.report import page

records = [record for record in page.load(WORKDIR).metrics if record["phase"] != "cold_start"]
figure, panels = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
for panel, name in zip(panels, ("eval/accuracy", "eval/tokens_per_question"), strict=True):
    shown = [record for record in records if name in record]
    panel.plot([record["step"] for record in shown], [record[name] for record in shown], marker="o")
    for record in records:
        if record["phase"] == "executor":
            panel.axvspan(record["step"] - 1, record["step"], color="tab:orange", alpha=0.12, linewidth=0)
    panel.set(xlabel="step", title=name)

# %% [markdown]
# The final table: held-out accuracy and generated tokens for a single agent, for self-consistency at the same tokens,
# for the cold start and for the trained system, and where the gain comes from.

# %%
from metaagentx import report

report.show(results)

# %% [markdown]
# ## Ask a question
#
# The designer writes a design, the executor runs it. First a question of yours, in the words of its tasks, then one
# that was held out from training.

# %%
from metaagentx.solve import solve

QUESTION = "Spell this word backward (example: sun -> nus): crow"  # @param {type: "string"}
print(solve(run, WORKDIR, QUESTION))

# %%
print(solve(run, WORKDIR, index=3))

# %% [markdown]
# ## Read an episode
#
# What was trained on, in full: every design of one question, every agent's turn, rewards and advantages. The report of
# the run, `report.html` in its work directory, shows more of them beside all curves.

# %%
from metaagentx.report.episode_text import render

print(render(page.load(WORKDIR).episodes[-1]))
print(f"Report: {WORKDIR / 'report.html'}")
