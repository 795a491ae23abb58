"""Proof by experiment: does a process make another one wait?"""
