"""eventflow"""
