raise RuntimeError("this pack needs a library nobody has")
