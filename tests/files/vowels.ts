# comment % still the comment
@PROBLEMNAME vowels
@Missing false
@UniVariate FALSE
@Dimensions	2
@EqualLength False
@CLASSLABEL True slow fast🎈
@DATA

1, 2,3:-4,5e-1,.5: fast🎈
# between
7:8:slow 
