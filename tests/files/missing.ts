@dimensions 2
@missing true
@classLabel true a b
@data
1,2:3,4:a
1,?:3,4:b
