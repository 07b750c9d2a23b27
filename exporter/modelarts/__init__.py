"""The training job API of ModelArts: requests, complete searches, and the reads of a poll."""
