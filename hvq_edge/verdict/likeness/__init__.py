"""Are the images of a camera like those that the model was trained on?"""
