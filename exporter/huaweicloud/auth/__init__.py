"""Every way to sign in to Huawei Cloud; `chain.resolve` picks the one that a target uses."""
