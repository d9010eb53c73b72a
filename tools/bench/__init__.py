"""What an upgrade costs on the device, measured side by side with the least that it can cost."""
