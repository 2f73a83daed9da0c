"""Pipeline stages that every study shares; each module is one stage of dvc.yaml."""
