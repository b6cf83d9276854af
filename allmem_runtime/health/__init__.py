"""Does everything work on this machine?"""
