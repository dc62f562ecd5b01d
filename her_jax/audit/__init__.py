"""The audit: what proves that a figure of this project means what it says.

relabelling   relabelled rows against what is stored, for any sampler
reward        the reward against hand-written examples and the contract of being pure
replay        this project's own replay, while training and as a whole
measure       every figure of a run from one compiled pass
programs      compiled programs that the seeds of a sweep share
labels        why a run failed, with the evidence
record        the audit record: build, write, verify
log           sampled episodes as Parquet, from which success can be recomputed
foreign       replay data of other libraries
"""
