"""Models that were trained elsewhere: their files → the parts of a bundle. Import `convert` for what needs torch.

What torch's and sklearn's own files need to be read safely is not known before they are read, so every file that may
hold a pickle is opened in a child process (`child`), with a time limit, and only plain data comes back: names, numbers
and safetensors. Without trust nothing is unpickled there either.
"""
