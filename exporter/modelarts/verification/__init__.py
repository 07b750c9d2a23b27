"""Verification of the job list: where does it differ from what is known?"""
