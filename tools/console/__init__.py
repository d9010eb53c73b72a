"""The platform with its console and two simulated devices, to play with."""
