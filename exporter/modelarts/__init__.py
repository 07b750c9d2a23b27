"""The training-job API of ModelArts: requests, searches, and what a poll reads."""
