"""From a name to a network: config, manifest, files, download and upload."""
