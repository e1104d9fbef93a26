"""A task package as pretrain/ is one, over the engine's tiny task: jobs that take a second once torch is imported."""
