"""The fault campaign: whole upgrades of simulated devices, one thing going wrong in each."""
