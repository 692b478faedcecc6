"""Executes an .aimodel in torch, for networks that Apple's interpreter takes too long for."""
